-- name: WaitingEvents
-- Empty text and empty arrays mean any. $8 false: without bodies.
SELECT id, saga, key, status, begun, state, attempts, CASE WHEN next_at < 'infinity' THEN next_at END, expires_at, last_error,
    arrived_at, event_id, source, topic, type, subject, sequence, previous, recorded_at, database, content_type, headers, CASE WHEN $8::boolean THEN body ELSE ''::bytea END
FROM {schema}.saga_waiting
WHERE ($1::text = '' OR saga = $1::text) AND ($2::text = '' OR key = $2::text)
  AND (pg_catalog.cardinality($3::text[]) = 0 OR status = ANY ($3::text[])) AND ($4::text = '' OR event_id = $4::text::uuid)
  AND id > $5::bigint AND (pg_catalog.cardinality($6::bigint[]) = 0 OR id = ANY ($6::bigint[]))
ORDER BY id LIMIT $7::bigint

-- name: RetryWaiting
-- What had expired gets its time once more, and an hour at least.
WITH selected AS MATERIALIZED (
    SELECT id, saga, key, event_id, type, status, attempts, last_error FROM {schema}.saga_waiting
    WHERE ($1::text = '' OR saga = $1::text) AND ($2::text = '' OR key = $2::text)
      AND (pg_catalog.cardinality($3::text[]) = 0 OR status = ANY ($3::text[])) AND ($4::text = '' OR event_id = $4::text::uuid)
      AND id > $5::bigint AND (pg_catalog.cardinality($6::bigint[]) = 0 OR id = ANY ($6::bigint[]))
    ORDER BY id LIMIT $7::bigint
    FOR UPDATE
)
UPDATE {schema}.saga_waiting w SET
    status = CASE WHEN w.status IN ('failed', 'retry') THEN 'retry' ELSE 'waiting' END, attempts = 0, next_at = clock_timestamp(),
    retry_at = '-infinity', expires_at = CASE WHEN w.status = 'expired'
        THEN clock_timestamp() + GREATEST(w.expires_at - w.arrived_at, interval '1 hour') ELSE w.expires_at END,
    changed_at = clock_timestamp()
FROM selected s
WHERE w.id = s.id
RETURNING s.id, s.saga, s.key, s.event_id, s.type, s.status, s.attempts, s.last_error

-- name: DiscardWaiting
-- Events that may have waited behind them are due.
WITH selected AS MATERIALIZED (
    SELECT id, saga, key, event_id, type, status, attempts, last_error FROM {schema}.saga_waiting
    WHERE ($1::text = '' OR saga = $1::text) AND ($2::text = '' OR key = $2::text)
      AND (pg_catalog.cardinality($3::text[]) = 0 OR status = ANY ($3::text[])) AND ($4::text = '' OR event_id = $4::text::uuid)
      AND id > $5::bigint AND (pg_catalog.cardinality($6::bigint[]) = 0 OR id = ANY ($6::bigint[]))
    ORDER BY id LIMIT $7::bigint
    FOR UPDATE
), gone AS (
    DELETE FROM {schema}.saga_waiting WHERE id IN (SELECT id FROM selected)
    RETURNING id, saga, key
), behind AS (
    UPDATE {schema}.saga_waiting w SET next_at = clock_timestamp()
    FROM (SELECT DISTINCT saga, key FROM gone) g
    WHERE w.saga = g.saga AND w.key = g.key AND w.status = 'waiting' AND w.id NOT IN (SELECT id FROM selected)
)
SELECT s.id, s.saga, s.key, s.event_id, s.type, s.status, s.attempts, s.last_error FROM gone JOIN selected s USING (id)
