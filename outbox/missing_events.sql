-- name: MissingEvents
-- The events of a stream between two sequences. Rows of a stream commit in the order of their sequences, so no row with a
-- lower sequence can come later. A page ends with the event that reaches $7 bytes.
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
