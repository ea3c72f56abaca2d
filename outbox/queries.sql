-- name: Record
-- Takes the next sequences of each stream, in key order so that two transactions can't deadlock, and inserts the rows.
-- The clock is read under the stream's row lock. A crash could undo an asynchronous commit after its events were sent, so
-- the last column makes the commit wait for the disk.
WITH event AS (
    SELECT *
    FROM ROWS FROM (
        pg_catalog.unnest($2::text[]::uuid[]), pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[]), pg_catalog.unnest($5::text[]),
        pg_catalog.unnest($6::boolean[]), pg_catalog.unnest($7::text[]), pg_catalog.unnest($8::text[]), pg_catalog.unnest($9::bytea[]),
        pg_catalog.unnest($10::text[]), pg_catalog.unnest($11::text[])
    ) WITH ORDINALITY AS e (id, topic, type, subject, ordered, content_type, headers, body, cause, cause_consumer, n)
), run AS (
    SELECT topic, subject, pg_catalog.count(*) AS events FROM event WHERE ordered GROUP BY topic, subject
), place AS (
    SELECT id, pg_catalog.row_number() OVER (PARTITION BY topic, subject ORDER BY n) AS k FROM event WHERE ordered
), advanced AS (
    INSERT INTO {schema}.stream AS s (source, topic, subject, previous, sequence)
    SELECT $1::text, topic, subject, 0::bigint,
        greatest((extract(epoch FROM clock_timestamp()) * 1000000::numeric)::bigint, (SELECT stream_floor + 1::bigint FROM {schema}.outbox_retention)) + events - 1::bigint
    FROM run
    ORDER BY topic, subject
    ON CONFLICT (source, topic, subject) DO UPDATE SET
        previous = s.sequence,
        sequence = greatest(s.sequence + 1::bigint, (extract(epoch FROM clock_timestamp()) * 1000000::numeric)::bigint) - 1::bigint
            + (SELECT events FROM run r WHERE r.topic = excluded.topic AND r.subject = excluded.subject)
    RETURNING topic, subject, previous, sequence
)
INSERT INTO {schema}.outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, headers, body, cause, cause_consumer)
SELECT e.id, $1::text, e.topic, e.type, e.subject,
    coalesce(a.sequence - r.events + p.k, 0::bigint),
    CASE WHEN p.k = 1::bigint THEN a.previous ELSE coalesce(a.sequence - r.events + p.k - 1::bigint, 0::bigint) END,
    clock_timestamp(), e.content_type, e.headers::jsonb, e.body, e.cause::uuid, e.cause_consumer
FROM event e
LEFT JOIN place p USING (id)
LEFT JOIN run r ON p.k IS NOT NULL AND r.topic = e.topic AND r.subject = e.subject
LEFT JOIN advanced a ON p.k IS NOT NULL AND a.topic = e.topic AND a.subject = e.subject
ORDER BY e.n
RETURNING id, sequence, previous, recorded_at,
    CASE pg_catalog.current_setting('synchronous_commit'::text) WHEN 'off'::text
        THEN pg_catalog.set_config('synchronous_commit'::text, 'local'::text, true) END

-- name: RecordOne
-- Record for the most frequent case: one event that has an order.
WITH advanced AS (
    INSERT INTO {schema}.stream AS s (source, topic, subject, previous, sequence)
    VALUES ($1::text, $3::text, $5::text, 0::bigint,
        greatest((extract(epoch FROM clock_timestamp()) * 1000000::numeric)::bigint, (SELECT stream_floor + 1::bigint FROM {schema}.outbox_retention)))
    ON CONFLICT (source, topic, subject) DO UPDATE SET
        previous = s.sequence,
        sequence = greatest(s.sequence + 1::bigint, (extract(epoch FROM clock_timestamp()) * 1000000::numeric)::bigint)
    RETURNING previous, sequence
)
INSERT INTO {schema}.outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, headers, body, cause, cause_consumer)
SELECT $2::text::uuid, $1::text, $3::text, $4::text, $5::text, a.sequence, a.previous, clock_timestamp(), $6::text, $7::text::jsonb, $8::bytea, $9::text::uuid, $10::text
FROM advanced a
RETURNING id, sequence, previous, recorded_at,
    CASE pg_catalog.current_setting('synchronous_commit'::text) WHEN 'off'::text
        THEN pg_catalog.set_config('synchronous_commit'::text, 'local'::text, true) END

-- name: LeaveMarker
-- Appends a marker to a setting of the transaction. A rollback to a savepoint takes it back with the work beside it.
SELECT pg_catalog.set_config('rocketflow.after_commit'::text,
    coalesce(pg_catalog.current_setting('rocketflow.after_commit'::text, true), ''::text) || ' '::text || $1::text, true)

-- name: NotRolledBack
-- The markers that are left, the transaction's id if it has written anything, and those of the events that have a row.
SELECT coalesce(pg_catalog.current_setting('rocketflow.after_commit'::text, true), ''::text),
    pg_catalog.pg_current_xact_id_if_assigned()::text,
    ARRAY(SELECT e.id::text FROM pg_catalog.unnest($1::text[]::uuid[]) AS e (id) WHERE EXISTS (SELECT FROM {schema}.outbox o WHERE o.id = e.id OFFSET 0))

-- name: WasCommitted
SELECT coalesce(pg_catalog.pg_xact_status($1::text::xid8) = 'committed'::text, false)
