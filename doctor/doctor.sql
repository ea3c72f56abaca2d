-- name: Schemas
SELECT n.nspname::text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = 'outbox_sweep'
ORDER BY n.nspname
LIMIT $1::bigint

-- name: Identify
SELECT pg_catalog.current_setting('server_version_num')::integer, current_user::text,
    pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'), pg_catalog.pg_is_in_recovery(), clock_timestamp()

-- name: Owner
SELECT COALESCE(source, '') FROM {schema}.installation

-- name: Consumers
SELECT c.name, EXTRACT(epoch FROM c.inbox_retention)::float8,
    ARRAY(SELECT t.topic FROM {schema}.consumer_topic t WHERE t.consumer = c.name ORDER BY t.topic), c.born_at
FROM {schema}.consumer c
ORDER BY c.name
LIMIT $1::bigint
