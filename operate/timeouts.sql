-- name: TimeoutsNext
SELECT key, name, epoch, due_at, armed_at, handed_over, sends, stuck_at, topic, type, subject
FROM {schema}.timeout
ORDER BY due_at, key, name
LIMIT $1::bigint

-- name: TimeoutsOf
SELECT key, name, epoch, due_at, armed_at, handed_over, sends, stuck_at, topic, type, subject
FROM {schema}.timeout
WHERE key = $2::text
ORDER BY due_at, name
LIMIT $1::bigint

-- name: MoveTimeout
-- $5 null: now. The new epoch makes the events of the old one stale. The sweep takes the row at once and decides by its horizon what
-- becomes of it: it hands it over, sends its event, or takes it later. This statement doesn't know the horizon.
WITH old AS (
    SELECT key, name, epoch, armed_at, due_at, sends FROM {schema}.timeout
    WHERE key = $1::text AND name = $2::text AND ($3::text = '' OR epoch = $3::text::uuid)
    FOR UPDATE
), moved AS (
    UPDATE {schema}.timeout t SET
        epoch = $4::text::uuid, due_at = COALESCE($5::timestamptz, clock_timestamp()), handed_over = false, armed_at = clock_timestamp(), sends = 0,
        stuck_at = NULL, next_sweep_at = clock_timestamp()
    FROM old
    WHERE t.key = old.key AND t.name = old.name
    RETURNING t.key, t.name, old.epoch AS old_epoch, old.armed_at AS old_armed_at, old.due_at AS old_due_at, old.sends AS old_sends,
        t.type, t.topic, t.subject, t.epoch, t.due_at
), ended AS (
    INSERT INTO {schema}.timeout_history (key, name, epoch, armed_at, due_at, topic, type, subject, outcome, by_operator, next_epoch)
    SELECT key, name, old_epoch, old_armed_at, old_due_at, topic, type, subject, 'moved', true, epoch FROM moved
)
SELECT old_epoch, old_due_at, type, topic, subject, old_sends, due_at FROM moved

-- name: DisarmTimeout
WITH disarmed AS (
    DELETE FROM {schema}.timeout
    WHERE key = $1::text AND name = $2::text AND ($3::text = '' OR epoch = $3::text::uuid)
    RETURNING key, name, epoch, armed_at, due_at, topic, type, subject, sends
), ended AS (
    INSERT INTO {schema}.timeout_history (key, name, epoch, armed_at, due_at, topic, type, subject, outcome, by_operator)
    SELECT key, name, epoch, armed_at, due_at, topic, type, subject, 'disarmed', true FROM disarmed
)
SELECT epoch, due_at, type, topic, subject, sends FROM disarmed

-- name: EndedTimeout
SELECT key, name, epoch, armed_at, due_at, ended_at, outcome, by_operator, consumer, next_epoch, topic, type, subject
FROM {schema}.timeout_history
WHERE epoch = $1::text::uuid
ORDER BY ended
LIMIT 1

-- name: EndedTimeouts
-- The last $3 timeouts of key $1 that have ended; with $2 also those whose event has the subject $1.
SELECT key, name, epoch, armed_at, due_at, ended_at, outcome, by_operator, consumer, next_epoch, topic, type, subject
FROM (
    (
        SELECT * FROM {schema}.timeout_history WHERE key = $1::text ORDER BY ended DESC LIMIT $3::bigint
    ) UNION ALL (
        SELECT * FROM {schema}.timeout_history WHERE $2::boolean AND subject = $1::text AND subject <> key AND subject <> '' ORDER BY ended DESC LIMIT $3::bigint
    )
) h
ORDER BY ended_at DESC
LIMIT $3::bigint

-- name: ArmedByEvent
-- The timeout that is armed with event $1, if it is among the $2 that are due first: there is no index by event.
SELECT key, name, epoch, due_at, armed_at, handed_over, sends, stuck_at, topic, type, subject
FROM (SELECT * FROM {schema}.timeout ORDER BY due_at LIMIT $2::bigint) t
WHERE epoch = $1::text::uuid
