-- name: Refill
-- Only what is committed, being read; the rows of a stream commit in the order of their sequence.
SELECT id, source, topic, type, subject, sequence, previous, recorded_at, content_type, headers, body
FROM {schema}.outbox
WHERE source = $1::text AND topic = $2::text AND subject = $3::text AND sequence > $4::bigint AND sequence < $5::bigint AND sequence > 0
ORDER BY sequence
LIMIT $6::bigint

-- name: Resend
-- $2 to $7: empty text and null mean any. By id, which is nearly by time.
SELECT id, source, topic, type, subject, sequence, previous, recorded_at, content_type, headers, body
FROM {schema}.outbox
WHERE id > $1::text::uuid
  AND ($2::text = '' OR source = $2::text) AND ($3::text = '' OR topic = $3::text)
  AND ($4::text = '' OR type = $4::text) AND ($5::text = '' OR subject = $5::text)
  AND ($6::timestamptz IS NULL OR recorded_at >= $6::timestamptz) AND ($7::timestamptz IS NULL OR recorded_at < $7::timestamptz)
ORDER BY id
LIMIT $8::bigint
