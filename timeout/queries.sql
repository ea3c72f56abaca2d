-- name: DatabaseID
SELECT id::text FROM {schema}.installation

-- name: Arm
-- The sweep considers the row when the timeout comes within the horizon ($5). If it is within the horizon already, the
-- sweep leaves the hand-over to the arming process for the grace ($4).
-- Here and below, the statement that ends an epoch also writes what became of it to the history.
WITH armed AS (
    INSERT INTO {schema}.timeout AS t
        (key, name, epoch, due_at, next_sweep_at, source, topic, type, subject, content_type, headers, body)
    VALUES ($1::text, $2::text, $3::text::uuid, $6::timestamptz,
        CASE WHEN $6::timestamptz - pg_catalog.make_interval(secs => $5::float8) > clock_timestamp()
            THEN $6::timestamptz - pg_catalog.make_interval(secs => $5::float8) ELSE clock_timestamp() + pg_catalog.make_interval(secs => $4::float8) END,
        $7::text, $8::text, $9::text, $10::text, $11::text, $12::text::jsonb, $13::bytea)
    ON CONFLICT (key, name) DO UPDATE SET
        epoch = excluded.epoch, due_at = excluded.due_at, handed_over = false, next_sweep_at = excluded.next_sweep_at,
        armed_at = clock_timestamp(), source = excluded.source, topic = excluded.topic, type = excluded.type,
        subject = excluded.subject, content_type = excluded.content_type, headers = excluded.headers, body = excluded.body,
        sends = 0, stuck_at = NULL,
        replaced_epoch = t.epoch, replaced_armed_at = t.armed_at, replaced_due_at = t.due_at,
        replaced_topic = t.topic, replaced_type = t.type, replaced_subject = t.subject
    RETURNING key, name, epoch, armed_at, replaced_epoch, replaced_armed_at, replaced_due_at, replaced_topic, replaced_type, replaced_subject
), ended AS (
    INSERT INTO {schema}.timeout_history (key, name, epoch, armed_at, due_at, topic, type, subject, outcome, next_epoch)
    SELECT key, name, replaced_epoch, replaced_armed_at, replaced_due_at, replaced_topic, replaced_type, replaced_subject, 'replaced', epoch
    FROM armed WHERE replaced_epoch IS NOT NULL
)
SELECT armed_at FROM armed

-- name: ArmIfAbsent
INSERT INTO {schema}.timeout AS t
    (key, name, epoch, due_at, next_sweep_at, source, topic, type, subject, content_type, headers, body)
VALUES ($1::text, $2::text, $3::text::uuid, $6::timestamptz,
    CASE WHEN $6::timestamptz - pg_catalog.make_interval(secs => $5::float8) > clock_timestamp()
        THEN $6::timestamptz - pg_catalog.make_interval(secs => $5::float8) ELSE clock_timestamp() + pg_catalog.make_interval(secs => $4::float8) END,
    $7::text, $8::text, $9::text, $10::text, $11::text, $12::text::jsonb, $13::bytea)
ON CONFLICT (key, name) DO NOTHING
RETURNING armed_at

-- name: Rearm
-- The handler of the timeout's event arms it again. $14 holds the epochs that it may replace: with another epoch in the
-- row, the firing is stale. The epoch of its own event, $15, has not ended by this: the fence writes that it has fired.
WITH armed AS (
    UPDATE {schema}.timeout t SET
        epoch = $3::text::uuid, due_at = $6::timestamptz, handed_over = false, armed_at = clock_timestamp(), sends = 0, stuck_at = NULL,
        next_sweep_at =
        CASE WHEN $6::timestamptz - pg_catalog.make_interval(secs => $5::float8) > clock_timestamp()
            THEN $6::timestamptz - pg_catalog.make_interval(secs => $5::float8) ELSE clock_timestamp() + pg_catalog.make_interval(secs => $4::float8) END,
        source = $7::text, topic = $8::text, type = $9::text, subject = $10::text, content_type = $11::text, headers = $12::text::jsonb,
        body = $13::bytea,
        replaced_epoch = t.epoch, replaced_armed_at = t.armed_at, replaced_due_at = t.due_at,
        replaced_topic = t.topic, replaced_type = t.type, replaced_subject = t.subject
    WHERE key = $1::text AND name = $2::text AND epoch = ANY ($14::text[]::uuid[])
    RETURNING key, name, epoch, armed_at, replaced_epoch, replaced_armed_at, replaced_due_at, replaced_topic, replaced_type, replaced_subject
), ended AS (
    INSERT INTO {schema}.timeout_history (key, name, epoch, armed_at, due_at, topic, type, subject, outcome, next_epoch)
    SELECT key, name, replaced_epoch, replaced_armed_at, replaced_due_at, replaced_topic, replaced_type, replaced_subject, 'replaced', epoch
    FROM armed WHERE replaced_epoch <> $15::text::uuid
)
SELECT armed_at FROM armed

-- name: Move
-- $7 and $8, if not null: as $14 and $15 of Rearm.
WITH moved AS (
    UPDATE {schema}.timeout t SET
        epoch = $3::text::uuid, due_at = $6::timestamptz, handed_over = false, armed_at = clock_timestamp(), sends = 0, stuck_at = NULL,
        next_sweep_at =
        CASE WHEN $6::timestamptz - pg_catalog.make_interval(secs => $5::float8) > clock_timestamp()
            THEN $6::timestamptz - pg_catalog.make_interval(secs => $5::float8) ELSE clock_timestamp() + pg_catalog.make_interval(secs => $4::float8) END,
        replaced_epoch = t.epoch, replaced_armed_at = t.armed_at, replaced_due_at = t.due_at
    WHERE key = $1::text AND name = $2::text AND ($7::text[] IS NULL OR epoch = ANY ($7::text[]::uuid[]))
    RETURNING key, name, epoch, armed_at, source, topic, type, subject, content_type, headers, body, replaced_epoch, replaced_armed_at, replaced_due_at
), ended AS (
    INSERT INTO {schema}.timeout_history (key, name, epoch, armed_at, due_at, topic, type, subject, outcome, next_epoch)
    SELECT key, name, replaced_epoch, replaced_armed_at, replaced_due_at, topic, type, subject, 'moved', epoch
    FROM moved WHERE $8::text IS NULL OR replaced_epoch <> $8::text::uuid
)
SELECT armed_at, source, topic, type, subject, content_type, headers, body FROM moved

-- name: Get
SELECT epoch, due_at, armed_at, handed_over, sends, stuck_at, source, topic, type, subject, content_type, headers, body
FROM {schema}.timeout WHERE key = $1::text AND name = $2::text

-- name: Disarm
WITH disarmed AS (
    DELETE FROM {schema}.timeout WHERE key = $1::text AND name = $2::text
    RETURNING key, name, epoch, armed_at, due_at, topic, type, subject
), ended AS (
    INSERT INTO {schema}.timeout_history (key, name, epoch, armed_at, due_at, topic, type, subject, outcome)
    SELECT key, name, epoch, armed_at, due_at, topic, type, subject, 'disarmed' FROM disarmed
)
SELECT epoch, due_at FROM disarmed

-- name: DisarmRearmed
-- The handler of the timeout's event disarms what it armed again. The fence deletes the row after the handler.
WITH disarmed AS (
    UPDATE {schema}.timeout t SET
        epoch = $3::text::uuid, due_at = clock_timestamp(), replaced_epoch = t.epoch, replaced_armed_at = t.armed_at, replaced_due_at = t.due_at
    WHERE key = $1::text AND name = $2::text AND epoch = ANY ($4::text[]::uuid[])
    RETURNING key, name, topic, type, subject, replaced_epoch, replaced_armed_at, replaced_due_at
)
INSERT INTO {schema}.timeout_history (key, name, epoch, armed_at, due_at, topic, type, subject, outcome)
SELECT key, name, replaced_epoch, replaced_armed_at, replaced_due_at, topic, type, subject, 'disarmed' FROM disarmed

-- name: ReadDue
SELECT armed_at, due_at, (extract(epoch FROM clock_timestamp() - due_at) * 1000000::numeric)::bigint
FROM {schema}.timeout WHERE key = $1::text AND name = $2::text AND epoch = $3::text::uuid

-- name: Fire
-- $4 and $5: when it was armed and due. (The row may not say it any more: see DisarmRearmed.) $6: the handler's consumer.
WITH fired AS (
    DELETE FROM {schema}.timeout
    WHERE key = $1::text AND name = $2::text AND epoch = $3::text::uuid AND due_at <= clock_timestamp()
    RETURNING key, name, epoch, topic, type, subject
)
INSERT INTO {schema}.timeout_history (key, name, epoch, armed_at, due_at, topic, type, subject, outcome, consumer)
SELECT key, name, epoch, $4::timestamptz, $5::timestamptz, topic, type, subject, 'fired', $6::text FROM fired

-- name: FireRearmed
-- The same if the handler has armed the timeout again, so that the row carries one of the epochs $7 that it drew. $8 to $10 are of its event.
INSERT INTO {schema}.timeout_history (key, name, epoch, armed_at, due_at, topic, type, subject, outcome, consumer, next_epoch)
SELECT key, name, $3::text::uuid, $4::timestamptz, $5::timestamptz, $8::text, $9::text, $10::text, 'fired', $6::text, epoch
FROM {schema}.timeout
WHERE key = $1::text AND name = $2::text AND epoch = ANY ($7::text[]::uuid[])

-- name: IsArmed
SELECT EXISTS (SELECT FROM {schema}.timeout WHERE key = $1::text AND name = $2::text AND epoch = ANY ($3::text[]::uuid[]))

-- name: MarkHandedOver
-- If this update is lost, the sweep hands the timeout over a second time, which has no effect. So the commit doesn't wait
-- for the disk, and rows that another transaction has locked are skipped.
WITH relaxed AS MATERIALIZED (
    SELECT pg_catalog.set_config('synchronous_commit', 'off', true)
), held AS (
    SELECT t.key, t.name
    FROM relaxed, ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[]::uuid[])) AS h (key, name, epoch)
    JOIN {schema}.timeout t USING (key, name, epoch)
    FOR UPDATE OF t SKIP LOCKED
)
UPDATE {schema}.timeout t
SET handed_over = true, next_sweep_at = GREATEST(t.due_at, clock_timestamp()) + pg_catalog.make_interval(secs => $4::float8)
FROM held WHERE t.key = held.key AND t.name = held.name

-- name: FireFromPostgres
-- Timeouts whose timer the broker rejects: the sweep takes them when they are due.
UPDATE {schema}.timeout t SET next_sweep_at = GREATEST(t.due_at, clock_timestamp())
FROM (
    SELECT t.key, t.name
    FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[]::uuid[])) AS h (key, name, epoch)
    JOIN {schema}.timeout t USING (key, name, epoch)
    FOR UPDATE OF t SKIP LOCKED
) AS held
WHERE t.key = held.key AND t.name = held.name

-- name: NextSweep
-- The time of this transaction, and the microseconds from now until the next row has to be swept. What was due before was claimed
-- by the sweep before: leaving it out skips the index entries of rows that have fired. The claims of this transaction need not wait
-- for the disk: if they are lost, events are sent a second time, which has no effect.
SELECT pg_catalog.set_config('synchronous_commit', 'off', true), now(), (
    SELECT (extract(epoch FROM next_sweep_at - clock_timestamp()) * 1000000::numeric)::bigint
    FROM {schema}.timeout WHERE next_sweep_at > now()
    ORDER BY next_sweep_at LIMIT 1
)

-- name: Sweep
-- Claims a page of timeouts by moving next_sweep_at on. A timeout that fires from Postgres is sent when it is due, and again
-- after the grace ($2). From then on, and for a timeout that was handed over, the pause before it is sent again ($3) doubles
-- with each time, up to six hours, so that a consumer that was down finds few copies. A timeout that was sent ten times and is
-- overdue for $5 is stuck: it is sent once a day. The page begins after $6, or with the oldest row.
WITH due AS (
    SELECT key, name, stuck_at,
        due_at <= now() AND sends >= 10 AND GREATEST(due_at, armed_at) < now() - pg_catalog.make_interval(secs => $5::float8) AS stuck
    FROM {schema}.timeout
    WHERE next_sweep_at <= now() AND next_sweep_at > COALESCE($6::timestamptz, '-infinity')
    ORDER BY next_sweep_at LIMIT $1::integer
    FOR UPDATE SKIP LOCKED
)
UPDATE {schema}.timeout t SET
    sends = t.sends + CASE WHEN t.due_at <= now() THEN 1 ELSE 0 END,
    stuck_at = CASE WHEN due.stuck THEN COALESCE(t.stuck_at, now()) END,
    next_sweep_at = CASE
        WHEN due.stuck THEN now() + interval '1 day'
        WHEN t.due_at <= now() AND t.sends = 0 AND NOT t.handed_over THEN now() + pg_catalog.make_interval(secs => $2::float8)
        WHEN t.due_at <= now() THEN now() + LEAST(pg_catalog.make_interval(secs => $3::float8 * pg_catalog.power(2::float8,
            LEAST(t.sends - CASE WHEN t.handed_over THEN 0 ELSE 1 END, 30)::float8)), interval '6 hours')
        WHEN t.due_at - pg_catalog.make_interval(secs => $4::float8) > now() THEN t.due_at - pg_catalog.make_interval(secs => $4::float8)
        ELSE now() + pg_catalog.make_interval(secs => $2::float8)
    END
FROM due WHERE t.key = due.key AND t.name = due.name
RETURNING t.key, t.name, t.epoch, t.due_at, t.armed_at, t.source, t.topic, t.type, t.subject, t.content_type, t.headers, t.body, now(),
    t.handed_over, t.sends, due.stuck AND due.stuck_at IS NULL

-- name: Postpone
-- Timeouts that the broker did not accept, which doesn't count as sent. Before they are due, they are tried again after the grace
-- ($6) or when they are due. Overdue ones are tried again when they are overdue for twice as long as now, after $4 at the
-- earliest and $5 at the latest: soon after a short outage, and not all the time in a long one.
UPDATE {schema}.timeout t SET
    next_sweep_at = clock_timestamp() + GREATEST(pg_catalog.make_interval(secs => $4::float8), LEAST(
        CASE WHEN t.due_at > clock_timestamp() THEN LEAST(t.due_at - clock_timestamp(), pg_catalog.make_interval(secs => $6::float8))
            ELSE clock_timestamp() - t.due_at END,
        pg_catalog.make_interval(secs => $5::float8))),
    sends = GREATEST(t.sends - 1, 0)
FROM (
    SELECT t.key, t.name
    FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[]::uuid[])) AS h (key, name, epoch)
    JOIN {schema}.timeout t USING (key, name, epoch)
    FOR UPDATE OF t SKIP LOCKED
) AS held
WHERE t.key = held.key AND t.name = held.name
