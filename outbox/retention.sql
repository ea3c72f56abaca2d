-- name: Now
SELECT clock_timestamp()

-- name: ExpireDiscarded
DELETE FROM {schema}.outbox_discarded WHERE discarded_at < $1::timestamptz

-- name: BeginRetention
-- Affects the row for one process an hour. A begun_at in the future, from before the clock was set back, does not block it.
UPDATE {schema}.outbox_retention SET begun_at = clock_timestamp()
WHERE begun_at < clock_timestamp() - pg_catalog.make_interval(secs => $1::float8) OR begun_at > clock_timestamp()

-- name: EventsBetween
SELECT EXISTS (SELECT FROM {schema}.outbox WHERE id >= $1::text::uuid AND id < $2::text::uuid)

-- name: ExpireStreams
-- Deletes idle streams: their sequence is below $3, and no event of theirs is kept, so none is owed and none can be requested
-- (the subquery is a scalar one so that it is looked up row by row). A row that a publishing transaction has locked is
-- skipped, and one that it has just updated no longer qualifies when it is locked. The floor is raised with the deletion.
WITH idle AS (
    SELECT s.ctid FROM {schema}.stream s
    WHERE s.ctid >= $1::text::tid AND s.ctid < $2::text::tid AND s.sequence < $3::bigint
      AND (
        SELECT o.sequence FROM {schema}.outbox o
        WHERE o.source = s.source AND o.topic = s.topic AND o.subject = s.subject AND o.sequence > 0
        LIMIT 1
    ) IS NULL
    FOR UPDATE OF s SKIP LOCKED
), gone AS (
    DELETE FROM {schema}.stream WHERE ctid = ANY (ARRAY (SELECT ctid FROM idle)) RETURNING sequence
), raised AS (
    UPDATE {schema}.outbox_retention SET stream_floor = GREATEST(stream_floor, highest.sequence)
    FROM (SELECT pg_catalog.max(sequence) AS sequence FROM gone) highest
    WHERE highest.sequence > stream_floor
)
SELECT FROM gone

-- name: ExpireDefaultEvents
-- Acknowledged events of days without a partition. (The OFFSET has acks looked up row by row.)
DELETE FROM {schema}.outbox_default o
WHERE o.ctid >= $1::text::tid AND o.ctid < $2::text::tid AND o.recorded_at < pg_catalog.to_timestamp($3::bigint::float8 / 1000000::float8)
  AND EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = o.id OFFSET 0)

-- name: ExpireDefaultAcks
DELETE FROM {schema}.outbox_ack_default a
WHERE a.ctid >= $1::text::tid AND a.ctid < $2::text::tid AND a.acked_at < pg_catalog.to_timestamp($3::bigint::float8 / 1000000::float8)
  AND NOT EXISTS (SELECT FROM {schema}.outbox o WHERE o.id = a.id OFFSET 0)

-- name: ExpireAudit
DELETE FROM {schema}.audit
WHERE ctid >= $1::text::tid AND ctid < $2::text::tid AND at < pg_catalog.to_timestamp($3::bigint::float8 / 1000000::float8)

-- name: ExpireDefaultTimeoutHistory
DELETE FROM {schema}.timeout_history_default
WHERE ctid >= $1::text::tid AND ctid < $2::text::tid AND ended_at < pg_catalog.to_timestamp($3::bigint::float8 / 1000000::float8)
