-- name: MissingEvents
-- The events of a stream between two sequences. Rows of a stream commit in the order of their sequence, so none of a lower
-- one can come later. A page ends with the event that reaches $7 bytes.
SELECT id, source, topic, type, subject, sequence, previous, recorded_at, content_type, headers, body
FROM (
    SELECT *, pg_catalog.sum(pg_catalog.octet_length(body)) OVER (ORDER BY sequence ROWS UNBOUNDED PRECEDING) - pg_catalog.octet_length(body) AS before
    FROM (
        SELECT *
        FROM {schema}.outbox
        WHERE source = $1::text AND topic = $2::text AND subject = $3::text AND sequence > $4::bigint AND sequence < $5::bigint AND sequence > 0
        ORDER BY sequence
        LIMIT $6::bigint
    ) AS missing
) AS page
WHERE before < $7::bigint
ORDER BY sequence

-- name: Resend
-- $2 to $7: empty text and null mean any. By id, which is nearly by time. A page ends as that of MissingEvents.
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
