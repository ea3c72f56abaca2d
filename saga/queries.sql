-- name: Begin
-- Returns no row if the saga exists. Waits for another transaction that inserts the same key.
WITH begun AS (
    INSERT INTO {schema}.saga (name, key, version, state, data, revision, finished_at, waiting)
    VALUES ($1::text, $2::text, $3::integer, $4::text, $5::text::jsonb, 1, CASE WHEN $6::boolean THEN clock_timestamp() END,
        EXISTS (SELECT FROM {schema}.saga_waiting w WHERE w.saga = $1::text AND w.key = $2::text))
    ON CONFLICT (name, key) DO NOTHING
    RETURNING name, key, revision, state, started_at, waiting
), history AS (
    INSERT INTO {schema}.saga_history (name, key, revision, from_state, to_state, cause_type, cause_id, changed_at)
    SELECT name, key, revision, '', state, $7::text, $8::text::uuid, started_at FROM begun
)
SELECT started_at, waiting FROM begun

-- name: Get
SELECT version, state, data, revision, started_at, changed_at, finished_at, waiting
FROM {schema}.saga WHERE name = $1::text AND key = $2::text

-- name: Lock
-- The subquery finds an event whose transaction did not see the saga, and so could not set waiting.
SELECT version, state, data, revision, started_at, changed_at, finished_at,
    waiting OR EXISTS (SELECT FROM {schema}.saga_waiting w WHERE w.saga = $1::text AND w.key = $2::text AND w.status <> 'expired')
FROM {schema}.saga WHERE name = $1::text AND key = $2::text
FOR UPDATE

-- name: Change
-- The row is locked. If it has another revision, the transition's function has changed the saga: no row is returned.
WITH changed AS (
    UPDATE {schema}.saga SET
        state = $4::text, data = $5::text::jsonb, revision = revision + 1, changed_at = clock_timestamp(),
        finished_at = CASE WHEN $6::boolean THEN clock_timestamp() END
    WHERE name = $1::text AND key = $2::text AND revision = $3::bigint
    RETURNING name, key, revision, state, changed_at
), history AS (
    INSERT INTO {schema}.saga_history (name, key, revision, from_state, to_state, cause_type, cause_id, changed_at)
    SELECT name, key, revision, $7::text, state, $8::text, $9::text::uuid, changed_at FROM changed
)
SELECT changed_at FROM changed

-- name: DeleteFinished
WITH old AS (
    SELECT name, key FROM {schema}.saga
    WHERE finished_at < now() - pg_catalog.make_interval(secs => $1::float8)
    ORDER BY finished_at LIMIT $2::integer
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {schema}.saga s USING old WHERE s.name = old.name AND s.key = old.key
    RETURNING s.name, s.key
), history AS (
    DELETE FROM {schema}.saga_history h USING gone WHERE h.name = gone.name AND h.key = gone.key
)
SELECT pg_catalog.count(*) FROM gone

-- name: DeleteOldWaiting
-- Waiting events that failed or expired and were neither retried nor discarded.
WITH old AS (
    SELECT id FROM {schema}.saga_waiting
    WHERE status IN ('failed', 'expired') AND changed_at < now() - pg_catalog.make_interval(secs => $1::float8)
    ORDER BY changed_at LIMIT $2::integer
    FOR UPDATE SKIP LOCKED
)
DELETE FROM {schema}.saga_waiting w USING old WHERE w.id = old.id
RETURNING w.saga, w.key, w.type, w.event_id, w.status

-- name: RunningStates
-- The versions and states of running sagas, with their number, of which at most $1 are counted. It reads the index from one
-- group to the next, not every row.
WITH RECURSIVE known AS (
    (SELECT name, version, state FROM {schema}.saga WHERE finished_at IS NULL ORDER BY name, version, state LIMIT 1)
    UNION ALL
    SELECT n.name, n.version, n.state FROM known k CROSS JOIN LATERAL (
        SELECT s.name, s.version, s.state FROM {schema}.saga s
        WHERE s.finished_at IS NULL AND (s.name, s.version, s.state) > (k.name, k.version, k.state)
        ORDER BY s.name, s.version, s.state LIMIT 1
    ) n
)
SELECT k.name, k.version, k.state, c.sagas
FROM known k CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*) AS sagas FROM (
        SELECT FROM {schema}.saga s
        WHERE s.finished_at IS NULL AND s.name = k.name AND s.version = k.version AND s.state = k.state
        LIMIT $1::integer
    ) counted
) c
LIMIT $2::integer

-- name: InsertWaiting
-- The saga's row is locked, or there is none. $16 is how long the event waits.
WITH marked AS (
    UPDATE {schema}.saga SET waiting = true WHERE name = $1::text AND key = $2::text -- even if it is true: an older snapshot gets a serialization error
)
INSERT INTO {schema}.saga_waiting (saga, key, begun, state, next_at, expires_at,
    event_id, source, topic, type, subject, sequence, previous, recorded_at, database, content_type, headers, body)
VALUES ($1::text, $2::text, $3::boolean, $4::text,
    clock_timestamp() + LEAST(pg_catalog.make_interval(secs => 1), pg_catalog.make_interval(secs => $16::float8)),
    clock_timestamp() + pg_catalog.make_interval(secs => $16::float8),
    $5::text::uuid, $6::text, $7::text, $8::text, $9::text, $10::bigint, $11::bigint, $12::timestamptz, $13::text, $14::text,
    $15::text::jsonb, $17::bytea)
RETURNING id, expires_at

-- name: NextWaiting
-- The first waiting event, in order of arrival, that the state accepts ($3, $4: topics and types) and that this transaction
-- has not tried ($5). An event doesn't overtake an earlier one of its stream that failed or waits for its next attempt.
SELECT w.id, w.status, w.attempts, w.arrived_at, w.event_id, w.source, w.topic, w.type, w.subject, w.sequence, w.previous,
    w.recorded_at, w.database, w.content_type, w.headers, w.body
FROM {schema}.saga_waiting w
WHERE w.saga = $1::text AND w.key = $2::text AND w.id <> ALL ($5::bigint[])
    AND (w.status = 'waiting' AND w.expires_at > clock_timestamp() OR w.status = 'retry' AND w.retry_at <= clock_timestamp())
    AND EXISTS (SELECT FROM ROWS FROM (pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[])) AS t (topic, type)
        WHERE t.topic = w.topic AND t.type = w.type)
    AND NOT EXISTS (
        SELECT FROM {schema}.saga_waiting b
        WHERE b.saga = w.saga AND b.key = w.key AND b.source = w.source AND b.topic = w.topic AND b.subject = w.subject
            AND b.sequence > 0 AND b.sequence < w.sequence
            AND (b.status = 'waiting' AND b.expires_at > clock_timestamp() OR b.status IN ('retry', 'failed'))
            AND b.type = ANY ($4::text[])
    )
ORDER BY w.id LIMIT 1
FOR UPDATE OF w

-- name: HasEarlierWaiting
-- Whether an earlier event of the stream waits that the saga's state accepts ($3: types).
SELECT EXISTS (
    SELECT FROM {schema}.saga_waiting b
    WHERE b.saga = $1::text AND b.key = $2::text AND b.source = $4::text AND b.topic = $5::text AND b.subject = $6::text
        AND b.sequence > 0 AND b.sequence < $7::bigint
        AND (b.status = 'waiting' AND b.expires_at > clock_timestamp() OR b.status IN ('retry', 'failed'))
        AND b.type = ANY ($3::text[])
)

-- name: DeleteWaiting
DELETE FROM {schema}.saga_waiting WHERE id = $1::bigint

-- name: RecordFailure
-- $4 is the pause before the next attempt, in seconds. If it is negative, the event has failed.
UPDATE {schema}.saga_waiting w SET
    status = CASE WHEN $4::float8 < 0::float8 THEN 'failed' ELSE 'retry' END, attempts = $2::integer, last_error = $3::text,
    next_at = t.at, retry_at = t.at, changed_at = clock_timestamp()
FROM (SELECT CASE WHEN $4::float8 < 0::float8 THEN 'infinity'::timestamptz
    ELSE clock_timestamp() + pg_catalog.make_interval(secs => GREATEST($4::float8, 0)) END AS at) t
WHERE w.id = $1::bigint

-- name: DeleteUnacceptable
-- Deletes waiting events other than those that the saga's state, or one that can be reached from it, accepts ($3, $4: topics
-- and types).
DELETE FROM {schema}.saga_waiting w
WHERE w.saga = $1::text AND w.key = $2::text AND w.status IN ('waiting', 'retry')
    AND NOT EXISTS (SELECT FROM ROWS FROM (pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[])) AS t (topic, type)
        WHERE t.topic = w.topic AND t.type = w.type)
RETURNING w.type, w.event_id

-- name: SetBegun
-- Events that came before the saga began wait for a state that accepts them from now on, with the limit of their type ($5:
-- seconds). It runs before NextWaiting: an event that commits after this statement keeps begun = false, by which the recheck
-- after its commit finds it.
UPDATE {schema}.saga_waiting w SET begun = true, expires_at = clock_timestamp() + pg_catalog.make_interval(secs => t.seconds)
FROM ROWS FROM (pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[]), pg_catalog.unnest($5::float8[])) AS t (topic, type, seconds)
WHERE w.saga = $1::text AND w.key = $2::text AND NOT w.begun AND w.status = 'waiting' AND t.topic = w.topic AND t.type = w.type

-- name: SetWaiting
-- Sets saga.waiting. If $3, the transaction leaves events that the saga may accept: it marks them by a retry_at, which nothing
-- else sets while an event waits, and makes them due, so that an engine goes on with them. Otherwise it removes the marks.
WITH marked AS (
    UPDATE {schema}.saga_waiting SET
        retry_at = CASE WHEN $3::boolean THEN clock_timestamp() ELSE '-infinity' END,
        next_at = CASE WHEN $3::boolean THEN clock_timestamp() ELSE next_at END
    WHERE saga = $1::text AND key = $2::text AND status = 'waiting' AND ($3::boolean OR retry_at > '-infinity')
)
UPDATE {schema}.saga SET waiting = EXISTS (
    SELECT FROM {schema}.saga_waiting WHERE saga = $1::text AND key = $2::text AND status <> 'expired'
)
WHERE name = $1::text AND key = $2::text

-- name: DueWaiting
-- Takes the waiting events of one definition's sagas that are due, by moving next_at on: to the time at which the event has
-- waited twice as long, at most ten minutes later.
WITH due AS (
    SELECT id FROM {schema}.saga_waiting
    WHERE saga = $1::text AND status IN ('waiting', 'retry') AND next_at <= now()
    ORDER BY next_at LIMIT $2::integer
    FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE {schema}.saga_waiting w SET next_at = CASE WHEN w.status = 'retry' THEN now() + interval '1 minute'
        ELSE LEAST(now() + LEAST(GREATEST(now() - w.arrived_at, interval '1 second'), interval '10 minutes'), GREATEST(w.expires_at, now() + interval '1 second')) END
    FROM due WHERE w.id = due.id
    RETURNING w.key, w.status, w.begun, w.topic, w.type
)
SELECT t.key, t.status, t.begun, t.topic, t.type, s.version, s.state, s.finished_at IS NOT NULL
FROM taken t LEFT JOIN {schema}.saga s ON s.name = $1::text AND s.key = t.key

-- name: ExpireDue
UPDATE {schema}.saga_waiting w SET status = 'expired', next_at = 'infinity', changed_at = clock_timestamp()
FROM (
    SELECT id FROM {schema}.saga_waiting
    WHERE saga = $1::text AND status = 'waiting' AND next_at < 'infinity' AND expires_at <= now()
    ORDER BY next_at LIMIT $2::integer
    FOR UPDATE SKIP LOCKED
) late
WHERE w.id = late.id
RETURNING w.id, w.key, w.type, w.event_id, w.state, w.arrived_at, w.expires_at

-- name: WithUnseenWaiting
-- Those of the sagas $1, $2 that have begun and have an event that came before, or one that a transaction has left. The query
-- runs after the commit of the beginning or of the event, so that it sees both.
SELECT k.saga, k.key
FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) AS k (saga, key)
WHERE EXISTS (SELECT FROM {schema}.saga_waiting w WHERE w.saga = k.saga AND w.key = k.key
        AND (NOT w.begun OR w.status = 'waiting' AND w.retry_at > '-infinity'))
    AND EXISTS (SELECT FROM {schema}.saga s WHERE s.name = k.saga AND s.key = k.key)
