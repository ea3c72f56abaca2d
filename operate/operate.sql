-- name: ReportSettings
-- The statements of reports are short: compiling them takes longer than they do.
SELECT pg_catalog.set_config('statement_timeout', $1::text, true), pg_catalog.set_config('jit', 'off', true)

-- name: Now
SELECT now()

-- name: Schemas
SELECT n.nspname::text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = 'outbox_sweep'
ORDER BY n.nspname
LIMIT $1::bigint

-- name: Usage
-- The service, its consumers, and the topics of its handlers and streams. The topics of streams are found one after the other by the
-- key of the table, which may be large.
WITH RECURSIVE service AS (
    SELECT source FROM {schema}.installation WHERE source IS NOT NULL LIMIT 1
), published AS (
    (SELECT s.source, s.topic FROM {schema}.stream s JOIN service USING (source) ORDER BY s.topic LIMIT 1)
    UNION ALL
    SELECT p.source, (SELECT s.topic FROM {schema}.stream s WHERE s.source = p.source AND s.topic > p.topic ORDER BY s.topic LIMIT 1)
    FROM published p WHERE p.topic IS NOT NULL
)
SELECT 'service', source FROM service
UNION SELECT 'consumer', consumer FROM {schema}.consumer_handler
UNION SELECT 'topic', topic FROM {schema}.consumer_handler
UNION SELECT 'topic', topic FROM published WHERE topic IS NOT NULL
ORDER BY 1, 2
LIMIT $1::bigint
