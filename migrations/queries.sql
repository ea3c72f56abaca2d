-- name: NoTimeouts
-- Disables the role's timeouts for this transaction. transaction_timeout exists since PostgreSQL 17.
SELECT pg_catalog.pg_backend_pid()
FROM (
    SELECT pg_catalog.count(pg_catalog.set_config(s.name, '0', true)) FROM pg_catalog.pg_settings s
    WHERE s.name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')
) t

-- name: Lock
SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1::text, 0::bigint))

-- name: LockTimeout
SELECT pg_catalog.set_config('lock_timeout', $1::text, true)

-- name: SearchPath
-- The functions of the statements that follow are those of pg_catalog, whatever the pool's search path.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true)

-- name: Blockers
-- A role that is neither a superuser nor a member of pg_read_all_stats sees few columns of other roles' sessions.
SELECT a.pid, COALESCE(a.usename::text, ''), COALESCE(a.application_name, ''), COALESCE(pg_catalog.host(a.client_addr), ''),
    COALESCE(a.state, ''), COALESCE(EXTRACT(epoch FROM clock_timestamp() - a.xact_start), 0)::float8
FROM pg_catalog.pg_stat_activity a
WHERE a.pid = ANY (pg_catalog.pg_blocking_pids($1::integer))
ORDER BY a.pid

-- name: SchemaExists
SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1::text)

-- name: CreateSchema
CREATE SCHEMA {schema}

-- name: VersionsExist
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1::text AND c.relname = 'rocketflow_migration'
)

-- name: CreateVersions
CREATE TABLE {schema}.rocketflow_migration (
    version    bigint      NOT NULL PRIMARY KEY,
    name       text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)

-- name: DropVersions
DROP TABLE {schema}.rocketflow_migration

-- name: Versions
SELECT version, name, applied_at FROM {schema}.rocketflow_migration ORDER BY version

-- name: Applied
INSERT INTO {schema}.rocketflow_migration (version, name) VALUES ($1::bigint, $2::text)

-- name: Reverted
DELETE FROM {schema}.rocketflow_migration WHERE version = $1::bigint

-- name: Objects
-- The columns of the schema's tables and its functions.
SELECT c.relname::text || '.' || a.attname::text
FROM pg_catalog.pg_namespace n
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p') AND NOT c.relispartition
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname = $1::text
UNION ALL
SELECT p.proname::text || '()'
FROM pg_catalog.pg_namespace n
JOIN pg_catalog.pg_proc p ON p.pronamespace = n.oid
WHERE n.nspname = $1::text
