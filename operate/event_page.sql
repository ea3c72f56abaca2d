-- name: EventPage
-- The next page of events before $1, the newest first, that match. At most $8 rows are looked at; the last column of each row, and the row
-- without an event that comes last, say how far that went. Empty text means any. (The OFFSETs have rows looked up one by one.)
WITH scanned AS MATERIALIZED (
    SELECT id, source, topic, type, subject, sequence, recorded_at
    FROM {schema}.outbox
    WHERE id < $1::text::uuid AND id >= $2::text::uuid
    ORDER BY id DESC
    LIMIT $8::bigint
), found AS (
    SELECT * FROM scanned
    WHERE ($3::text = '' OR topic = $3::text) AND ($4::text = '' OR type = $4::text) AND ($5::text = '' OR source = $5::text)
      AND ($6::text = '' OR subject = $6::text)
    ORDER BY id DESC
    LIMIT $7::bigint
)
SELECT f.id::text, f.source, f.topic, f.type, f.subject, f.sequence, f.recorded_at,
    (SELECT a.acked_at FROM {schema}.outbox_ack a WHERE a.id = f.id OFFSET 0),
    (SELECT r.reason FROM {schema}.outbox_rejected r WHERE r.id = f.id OFFSET 0),
    (SELECT pg_catalog.count(*) FROM scanned), (SELECT s.id::text FROM scanned s ORDER BY s.id LIMIT 1), (SELECT pg_catalog.min(s.recorded_at) FROM scanned s)
FROM (SELECT 1) one LEFT JOIN found f ON true
ORDER BY f.id DESC

-- name: EventPageOfSubject
-- The next page of the events of the streams of subject $6 before ($8, $1), the newest first. At most $10 rows of each stream are looked at;
-- the last columns of each row, and the row without an event that comes last, say how far that went if there are more. The recursion is that
-- of Streams.
WITH RECURSIVE known AS (
    (SELECT source, topic FROM {schema}.stream ORDER BY source, topic LIMIT 1)
    UNION ALL
    SELECT n.source, n.topic FROM known k CROSS JOIN LATERAL (
        SELECT source, topic FROM {schema}.stream s WHERE (s.source, s.topic) > (k.source, k.topic)
        ORDER BY source, topic LIMIT 1
    ) n
), scanned AS MATERIALIZED (
    SELECT o.*
    FROM known k CROSS JOIN LATERAL (
        SELECT id, source, topic, type, subject, sequence, recorded_at
        FROM {schema}.outbox
        WHERE source = k.source AND topic = k.topic AND subject = $6::text AND sequence > 0
          AND sequence <= $8::bigint AND (sequence, id) < ($8::bigint, $1::text::uuid)
        ORDER BY sequence DESC
        LIMIT $10::bigint
    ) o
    WHERE ($3::text = '' OR k.topic = $3::text) AND ($5::text = '' OR k.source = $5::text)
), ends AS (
    SELECT DISTINCT ON (source, topic) sequence, id, recorded_at, pg_catalog.count(*) OVER (PARTITION BY source, topic) AS rows
    FROM scanned ORDER BY source, topic, sequence, id
), reached AS (
    SELECT sequence, id, recorded_at FROM ends WHERE rows = $10::bigint ORDER BY sequence DESC, id DESC LIMIT 1
), found AS (
    SELECT * FROM scanned s
    WHERE ($4::text = '' OR type = $4::text) AND id >= $2::text::uuid AND id < $9::text::uuid
      AND NOT EXISTS (SELECT FROM reached r WHERE (s.sequence, s.id) < (r.sequence, r.id))
    ORDER BY sequence DESC, id DESC
    LIMIT $7::bigint
)
SELECT f.id::text, f.source, f.topic, f.type, f.subject, f.sequence, f.recorded_at,
    (SELECT a.acked_at FROM {schema}.outbox_ack a WHERE a.id = f.id OFFSET 0),
    (SELECT r.reason FROM {schema}.outbox_rejected r WHERE r.id = f.id OFFSET 0),
    r.sequence, r.id::text, r.recorded_at
FROM (SELECT 1) one LEFT JOIN found f ON true LEFT JOIN reached r ON true
ORDER BY f.sequence DESC, f.id DESC
