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
    SELECT key, name, epoch, due_at, sends FROM {schema}.timeout
    WHERE key = $1::text AND name = $2::text AND ($3::text = '' OR epoch = $3::text::uuid)
    FOR UPDATE
)
UPDATE {schema}.timeout t SET
    epoch = $4::text::uuid, due_at = COALESCE($5::timestamptz, clock_timestamp()), handed_over = false, armed_at = clock_timestamp(), sends = 0,
    stuck_at = NULL, next_sweep_at = clock_timestamp()
FROM old
WHERE t.key = old.key AND t.name = old.name
RETURNING old.epoch, old.due_at, t.type, t.topic, t.subject, old.sends, t.due_at

-- name: DisarmTimeout
DELETE FROM {schema}.timeout
WHERE key = $1::text AND name = $2::text AND ($3::text = '' OR epoch = $3::text::uuid)
RETURNING epoch, due_at, type, topic, subject, sends
