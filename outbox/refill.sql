-- name: Refill
-- Only what is committed, being read; the rows of a stream commit in the order of their sequence.
SELECT id, source, topic, type, subject, sequence, previous, recorded_at, content_type, headers, body
FROM {schema}.outbox
WHERE source = $1 AND topic = $2 AND subject = $3 AND sequence > $4 AND sequence < $5 AND sequence > 0
ORDER BY sequence
LIMIT $6
