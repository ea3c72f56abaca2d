-- name: Record
-- Takes the next sequences of each stream, in key order so that two transactions can't deadlock, and inserts the rows.
-- The clock is read under the stream's row lock. An asynchronous commit could be taken back by a crash after it was
-- announced, so the last column makes it wait for the disk.
WITH event AS (
    SELECT *
    FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::text[], $8::text[], $9::bytea[])
        WITH ORDINALITY AS e (id, topic, type, subject, ordered, content_type, headers, body, n)
), run AS (
    SELECT topic, subject, count(*) AS events FROM event WHERE ordered GROUP BY topic, subject
), place AS (
    SELECT id, row_number() OVER (PARTITION BY topic, subject ORDER BY n) AS k FROM event WHERE ordered
), advanced AS (
    INSERT INTO {schema}.stream AS s (source, topic, subject, previous, sequence)
    SELECT $1, topic, subject, 0, greatest((extract(epoch FROM clock_timestamp()) * 1000000)::bigint, (SELECT stream_floor + 1 FROM {schema}.outbox_retention)) + events - 1
    FROM run
    ORDER BY topic, subject
    ON CONFLICT (source, topic, subject) DO UPDATE SET
        previous = s.sequence,
        sequence = greatest(s.sequence + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) - 1
            + (SELECT events FROM run r WHERE r.topic = excluded.topic AND r.subject = excluded.subject)
    RETURNING topic, subject, previous, sequence
)
INSERT INTO {schema}.outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, headers, body)
SELECT e.id, $1, e.topic, e.type, e.subject,
    coalesce(a.sequence - r.events + p.k, 0),
    CASE WHEN p.k = 1 THEN a.previous ELSE coalesce(a.sequence - r.events + p.k - 1, 0) END,
    clock_timestamp(), e.content_type, e.headers::jsonb, e.body
FROM event e
LEFT JOIN place p USING (id)
LEFT JOIN run r ON p.k IS NOT NULL AND r.topic = e.topic AND r.subject = e.subject
LEFT JOIN advanced a ON p.k IS NOT NULL AND a.topic = e.topic AND a.subject = e.subject
ORDER BY e.n
RETURNING id, sequence, previous, recorded_at,
    CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'local', true) END

-- name: RecordOne
-- Record for the most frequent case: one event with a place in a stream.
WITH advanced AS (
    INSERT INTO {schema}.stream AS s (source, topic, subject, previous, sequence)
    VALUES ($1, $3, $5, 0, greatest((extract(epoch FROM clock_timestamp()) * 1000000)::bigint, (SELECT stream_floor + 1 FROM {schema}.outbox_retention)))
    ON CONFLICT (source, topic, subject) DO UPDATE SET
        previous = s.sequence,
        sequence = greatest(s.sequence + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
    RETURNING previous, sequence
)
INSERT INTO {schema}.outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, headers, body)
SELECT $2, $1, $3, $4, $5, a.sequence, a.previous, clock_timestamp(), $6, $7::text::jsonb, $8
FROM advanced a
RETURNING id, sequence, previous, recorded_at,
    CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'local', true) END

-- name: Ack
-- Doesn't wait for the disk: an ack that a crash takes back costs a double, which is absorbed, and each wait would be
-- taken from the transactions that must.
WITH unhurried AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
INSERT INTO {schema}.outbox_ack (id) SELECT id FROM unhurried, unnest($1::uuid[]) AS id ON CONFLICT DO NOTHING

-- name: Check
-- (The OFFSET has rows looked up one by one: a join might read all of them.)
SELECT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = c.id OFFSET 0),
    EXISTS (SELECT FROM {schema}.outbox o WHERE o.id = c.id OFFSET 0),
    pg_is_in_recovery(), clock_timestamp()
FROM unnest($1::uuid[]) WITH ORDINALITY AS c (id, n)
ORDER BY n

-- name: Unlock
SELECT pg_advisory_unlock(hashtextextended($1, 0))

