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
