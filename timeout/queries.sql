-- The first sweep comes when the timeout is within the horizon ($5); if it is already, the arming process has a while to
-- hand it over itself ($4).
-- name: Arm
INSERT INTO {schema}.timeout AS t
    (key, name, epoch, due_at, next_sweep_at, source, topic, type, subject, content_type, headers, body)
VALUES ($1, $2, $3, $6,
    CASE WHEN $6::timestamptz - $5::interval > clock_timestamp() THEN $6 - $5 ELSE clock_timestamp() + $4::interval END, $7, $8, $9, $10, $11, $12, $13)
ON CONFLICT (key, name) DO UPDATE SET
    epoch = excluded.epoch, due_at = excluded.due_at, handed_over = false, next_sweep_at = excluded.next_sweep_at,
    armed_at = clock_timestamp(), source = excluded.source, topic = excluded.topic, type = excluded.type,
    subject = excluded.subject, content_type = excluded.content_type, headers = excluded.headers, body = excluded.body
RETURNING armed_at

-- In its own firing a timeout is armed again only if the firing would win: $14 are the epochs that it may replace.
-- name: Rearm
UPDATE {schema}.timeout SET
    epoch = $3, due_at = $6, handed_over = false, armed_at = clock_timestamp(), next_sweep_at =
    CASE WHEN $6::timestamptz - $5::interval > clock_timestamp() THEN $6 - $5 ELSE clock_timestamp() + $4::interval END,
    source = $7, topic = $8, type = $9, subject = $10, content_type = $11, headers = $12, body = $13
WHERE key = $1 AND name = $2 AND epoch = ANY ($14::uuid[])
RETURNING armed_at

-- name: Move
UPDATE {schema}.timeout SET
    epoch = $3, due_at = $6, handed_over = false, armed_at = clock_timestamp(), next_sweep_at =
    CASE WHEN $6::timestamptz - $5::interval > clock_timestamp() THEN $6 - $5 ELSE clock_timestamp() + $4::interval END
WHERE key = $1 AND name = $2 AND ($7::uuid[] IS NULL OR epoch = ANY ($7::uuid[]))
RETURNING armed_at, source, topic, type, subject, content_type, headers, body

-- name: Disarm
DELETE FROM {schema}.timeout WHERE key = $1 AND name = $2
RETURNING epoch, due_at

-- In its own firing a disarm takes back what the firing armed; the row itself goes when the fence wins.
-- name: DisarmOwn
UPDATE {schema}.timeout SET epoch = $3, due_at = clock_timestamp()
WHERE key = $1 AND name = $2 AND epoch = $4

-- name: Look
SELECT due_at, (extract(epoch FROM clock_timestamp() - due_at) * 1000000)::bigint
FROM {schema}.timeout WHERE key = $1 AND name = $2 AND epoch = $3

-- name: Win
DELETE FROM {schema}.timeout WHERE key = $1 AND name = $2 AND epoch = $3 AND due_at <= clock_timestamp()

-- name: Armed
SELECT EXISTS (SELECT FROM {schema}.timeout WHERE key = $1 AND name = $2 AND epoch = $3)

-- A mark that is lost means that the sweep hands the timeout over a second time, so it need not reach the disk at once;
-- nor does it wait for a row that a transaction is about to change.
-- name: MarkHandedOver
WITH relaxed AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true)
), held AS (
    SELECT t.key, t.name
    FROM relaxed, unnest($1::text[], $2::text[], $3::uuid[]) AS h (key, name, epoch)
    JOIN {schema}.timeout t USING (key, name, epoch)
    FOR UPDATE OF t SKIP LOCKED
)
UPDATE {schema}.timeout t
SET handed_over = true, next_sweep_at = greatest(t.due_at, clock_timestamp()) + $4::interval
FROM held WHERE t.key = held.key AND t.name = held.name

-- What is overdue is sent again when it has waited as long as it was overdue before, at least $3 and at most an hour: a
-- consumer that is down finds a handful of copies and not one a minute.
-- name: Sweep
WITH due AS (
    SELECT key, name FROM {schema}.timeout
    WHERE next_sweep_at <= now()
    ORDER BY next_sweep_at LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE {schema}.timeout t SET next_sweep_at = CASE
    WHEN t.due_at <= now() THEN now() + least(greatest(now() - t.due_at, $3::interval), interval '1 hour')
    WHEN t.due_at - $4::interval > now() THEN t.due_at - $4
    ELSE now() + $2::interval
END
FROM due WHERE t.key = due.key AND t.name = due.name
RETURNING t.key, t.name, t.epoch, t.due_at, t.armed_at, t.source, t.topic, t.type, t.subject, t.content_type, t.headers, t.body, now()

-- What could not be sent is tried again after $4, without the long wait for a consumer.
-- name: Release
UPDATE {schema}.timeout t SET next_sweep_at = clock_timestamp() + $4::interval
FROM (
    SELECT t.key, t.name
    FROM unnest($1::text[], $2::text[], $3::uuid[]) AS h (key, name, epoch)
    JOIN {schema}.timeout t USING (key, name, epoch)
    FOR UPDATE OF t SKIP LOCKED
) AS held
WHERE t.key = held.key AND t.name = held.name
