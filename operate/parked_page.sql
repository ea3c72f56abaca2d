-- name: ParkedPage
-- The next page of dead letters ($1) or other parked events after ($8, $9, $10, $11, $12), the longest parked first, without their bodies. Empty
-- text means any. $7 is a kind of errors, as DeadLetterGroups makes it. The consumers are found by the primary key, one after the other. Of
-- each, at most $14 rows are looked at, and of all of them the first $14 in the list's order; the last columns of each row, and the row
-- without an event that comes last, say how far that went. A branch of the union whose kind isn't wanted reads nothing.
WITH RECURSIVE every AS (
    (SELECT consumer FROM {schema}.parked WHERE $2::text = '' ORDER BY consumer LIMIT 1)
    UNION ALL
    SELECT n.consumer FROM every e CROSS JOIN LATERAL (
        SELECT consumer FROM {schema}.parked p WHERE p.consumer > e.consumer ORDER BY consumer LIMIT 1
    ) n
), wanted AS (
    SELECT consumer FROM every
    UNION ALL
    SELECT $2::text WHERE $2::text <> ''
), scanned AS MATERIALIZED (
    SELECT s.* FROM wanted w CROSS JOIN LATERAL (
        (SELECT parked_at, sequence, event_id, consumer, source, topic, type, subject, pg_catalog.left(last_error, 200) AS error FROM {schema}.parked
        WHERE $1::boolean AND reason = 'dead' AND consumer = w.consumer
          AND (parked_at, sequence, event_id, consumer, source) > ($8::timestamptz, $9::bigint, $10::text::uuid, $11::text, $12::text)
        ORDER BY parked_at, sequence, event_id, source LIMIT $14::bigint)
        UNION ALL
        (SELECT parked_at, sequence, event_id, consumer, source, topic, type, subject, pg_catalog.left(last_error, 200) AS error FROM {schema}.parked
        WHERE NOT $1::boolean AND reason <> 'dead' AND consumer = w.consumer
          AND (parked_at, sequence, event_id, consumer, source) > ($8::timestamptz, $9::bigint, $10::text::uuid, $11::text, $12::text)
        ORDER BY parked_at, sequence, event_id, source LIMIT $14::bigint)
    ) s
    ORDER BY parked_at, sequence, event_id, consumer, source
    LIMIT $14::bigint
), found AS (
    SELECT parked_at, sequence, event_id, consumer, source FROM scanned
    WHERE ($3::text = '' OR source = $3::text) AND ($4::text = '' OR topic = $4::text) AND ($5::text = '' OR type = $5::text)
      AND ($6::text = '' OR subject = $6::text)
      AND ($7::text = '' OR pg_catalog.regexp_replace(error, '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9]+', '…', 'g') = $7::text)
    ORDER BY parked_at, sequence, event_id, consumer, source
    LIMIT $13::bigint
), reached AS (
    SELECT parked_at, sequence, event_id, consumer, source FROM scanned
    ORDER BY parked_at DESC, sequence DESC, event_id DESC, consumer DESC, source DESC LIMIT 1
)
SELECT f.consumer, f.event_id::text, p.reason, p.attempts, CASE WHEN p.next_at < 'infinity'::timestamptz THEN p.next_at END, p.last_error, f.parked_at,
    f.source, p.topic, p.type, p.subject, f.sequence, p.recorded_at, pg_catalog.octet_length(p.body),
    (SELECT pg_catalog.count(*) FROM scanned), r.parked_at, r.sequence, r.event_id::text, r.consumer, r.source
FROM (SELECT 1) one LEFT JOIN reached r ON true LEFT JOIN found f ON true
LEFT JOIN LATERAL (
    SELECT * FROM {schema}.parked WHERE consumer = f.consumer AND event_id = f.event_id AND source = f.source OFFSET 0
) p ON true
ORDER BY f.parked_at, f.sequence, f.event_id, f.consumer, f.source

-- name: DeadLetterGroups
-- The dead letters by consumer, type and kind of error: numbers and ids are left out, as they differ from letter to letter. The oldest $1
-- are looked at.
SELECT consumer, topic, type, error, pg_catalog.count(*), pg_catalog.min(parked_at), pg_catalog.max(parked_at), pg_catalog.min(event_id::text)
FROM (
    SELECT consumer, topic, type, parked_at, event_id,
        pg_catalog.regexp_replace(pg_catalog.left(last_error, 200), '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9]+', '…', 'g') AS error
    FROM (
        SELECT d.* FROM {schema}.consumer c CROSS JOIN LATERAL (
            SELECT consumer, topic, type, parked_at, event_id, last_error FROM {schema}.parked
            WHERE consumer = c.name AND reason = 'dead' ORDER BY parked_at LIMIT $1::bigint
        ) d LIMIT $1::bigint
    ) letters
) g
GROUP BY consumer, topic, type, error
ORDER BY 5 DESC, consumer, topic, type, error
LIMIT $2::bigint

-- name: ParkedStreams
-- The next page of parked streams after ($1, $2, $3, $4), found one after the other by an index: the event that each waits for, and how many
-- wait behind it, up to $6.
WITH RECURSIVE heads AS (
    (SELECT consumer, source, topic, subject, event_id, 1 AS n FROM {schema}.parked
    WHERE sequence > 0 AND (consumer, source, topic, subject) > ($1::text, $2::text, $3::text, $4::text)
    ORDER BY consumer, source, topic, subject, sequence LIMIT 1)
    UNION ALL
    SELECT n.consumer, n.source, n.topic, n.subject, n.event_id, h.n + 1 FROM heads h CROSS JOIN LATERAL (
        SELECT consumer, source, topic, subject, event_id FROM {schema}.parked p
        WHERE p.sequence > 0 AND (p.consumer, p.source, p.topic, p.subject) > (h.consumer, h.source, h.topic, h.subject)
        ORDER BY consumer, source, topic, subject, sequence LIMIT 1
    ) n WHERE h.n < $5::bigint
)
SELECT h.consumer, h.source, h.topic, h.subject, p.event_id::text, p.type, p.reason, p.attempts,
    CASE WHEN p.next_at < 'infinity'::timestamptz THEN p.next_at END, p.last_error, p.parked_at,
    (SELECT pg_catalog.count(*) FROM (
        SELECT FROM {schema}.parked b
        WHERE b.consumer = h.consumer AND b.source = h.source AND b.topic = h.topic AND b.subject = h.subject AND b.sequence > p.sequence
        LIMIT $6::bigint
    ) behind)
FROM heads h JOIN {schema}.parked p ON p.consumer = h.consumer AND p.event_id = h.event_id AND p.source = h.source
ORDER BY h.n
