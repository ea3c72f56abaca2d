-- name: Resend
-- $2 to $7: empty text and null mean any. In the order of ids, which is nearly that of time. A page ends with the event that
-- reaches $9 bytes.
SELECT id, source, topic, type, subject, sequence, previous, recorded_at, content_type, headers, body
FROM (
    SELECT *, pg_catalog.sum(pg_catalog.octet_length(body)) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) - pg_catalog.octet_length(body) AS before
    FROM (
        SELECT *
        FROM {schema}.outbox
        WHERE id > $1::text::uuid AND ($2::text = '' OR source = $2::text) AND ($3::text = '' OR topic = $3::text) AND ($4::text = '' OR type = $4::text)
          AND ($5::text = '' OR subject = $5::text) AND ($6::timestamptz IS NULL OR recorded_at >= $6::timestamptz)
          AND ($7::timestamptz IS NULL OR recorded_at < $7::timestamptz)
        ORDER BY id
        LIMIT $8::bigint
    ) AS chosen
) AS page
WHERE before < $9::bigint
ORDER BY id

-- name: ResendByID
-- The same for events with the ids of $10.
SELECT id, source, topic, type, subject, sequence, previous, recorded_at, content_type, headers, body
FROM (
    SELECT *, pg_catalog.sum(pg_catalog.octet_length(body)) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) - pg_catalog.octet_length(body) AS before
    FROM (
        SELECT *
        FROM {schema}.outbox
        WHERE id > $1::text::uuid AND id = ANY ($10::text[]::uuid[]) AND ($2::text = '' OR source = $2::text) AND ($3::text = '' OR topic = $3::text) AND ($4::text = '' OR type = $4::text)
          AND ($5::text = '' OR subject = $5::text) AND ($6::timestamptz IS NULL OR recorded_at >= $6::timestamptz)
          AND ($7::timestamptz IS NULL OR recorded_at < $7::timestamptz)
        ORDER BY id
        LIMIT $8::bigint
    ) AS chosen
) AS page
WHERE before < $9::bigint
ORDER BY id
