-- name: Refill
-- Only what is committed, being read; the rows of a stream commit in the order of their sequence.
SELECT id, source, topic, type, subject, sequence, previous, recorded_at, content_type, headers, body
FROM {schema}.outbox
WHERE source = $1 AND topic = $2 AND subject = $3 AND sequence > $4 AND sequence < $5 AND sequence > 0
ORDER BY sequence
LIMIT $6

-- name: Resend
-- $2 to $7: empty text and null mean any. By id, which is nearly by time.
SELECT id, source, topic, type, subject, sequence, previous, recorded_at, content_type, headers, body
FROM {schema}.outbox
WHERE id > $1 AND ($2 = '' OR source = $2) AND ($3 = '' OR topic = $3) AND ($4 = '' OR type = $4) AND ($5 = '' OR subject = $5)
  AND ($6::timestamptz IS NULL OR recorded_at >= $6) AND ($7::timestamptz IS NULL OR recorded_at < $7)
ORDER BY id
LIMIT $8
