-- name: Now
SELECT now()

-- name: Schemas
SELECT n.nspname::text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = 'outbox_sweep'
ORDER BY n.nspname
LIMIT $1::bigint
