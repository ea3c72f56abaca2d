-- name: Streams
-- No index begins with the subject. The recursion finds the few sources and topics with one index lookup each.
WITH RECURSIVE known AS (
    (SELECT source, topic FROM {schema}.stream ORDER BY source, topic LIMIT 1)
    UNION ALL
    SELECT n.source, n.topic FROM known k CROSS JOIN LATERAL (
        SELECT source, topic FROM {schema}.stream s WHERE (s.source, s.topic) > (k.source, k.topic)
        ORDER BY source, topic LIMIT 1
    ) n
)
SELECT s.source, s.topic, s.sequence, s.previous
FROM known k JOIN {schema}.stream s ON s.source = k.source AND s.topic = k.topic AND s.subject = $1::text
WHERE $2::text = '' OR s.topic = $2::text
ORDER BY s.source, s.topic
LIMIT $3::bigint

-- name: Positions
-- The recursion is that of Streams. The events after the position are counted for streams that this schema publishes.
WITH RECURSIVE known AS (
    (SELECT consumer, source, topic FROM {schema}.position ORDER BY consumer, source, topic LIMIT 1)
    UNION ALL
    SELECT n.consumer, n.source, n.topic FROM known k CROSS JOIN LATERAL (
        SELECT consumer, source, topic FROM {schema}.position p
        WHERE (p.consumer, p.source, p.topic) > (k.consumer, k.source, k.topic)
        ORDER BY consumer, source, topic LIMIT 1
    ) n
)
SELECT p.consumer, p.source, p.topic, p.sequence,
       CASE WHEN EXISTS (SELECT FROM {schema}.stream s WHERE s.source = p.source AND s.topic = p.topic AND s.subject = $1::text)
       THEN (SELECT pg_catalog.count(*) FROM (
           SELECT FROM {schema}.outbox o
           WHERE o.source = p.source AND o.topic = p.topic AND o.subject = $1::text AND o.sequence > 0 AND o.sequence > p.sequence
           LIMIT $4::bigint
       ) later) END
FROM known k
JOIN {schema}.position p ON p.consumer = k.consumer AND p.source = k.source AND p.topic = k.topic AND p.subject = $1::text
WHERE $2::text = '' OR p.topic = $2::text
ORDER BY p.consumer, p.source, p.topic
LIMIT $3::bigint

-- name: ParkedInStream
-- The first $4 of each stream, and of what has no order; $3 at most. The recursion is that of Streams.
WITH RECURSIVE known AS (
    (SELECT consumer, source, topic FROM {schema}.parked ORDER BY consumer, source, topic LIMIT 1)
    UNION ALL
    SELECT n.consumer, n.source, n.topic FROM known k CROSS JOIN LATERAL (
        SELECT consumer, source, topic FROM {schema}.parked p
        WHERE (p.consumer, p.source, p.topic) > (k.consumer, k.source, k.topic)
        ORDER BY consumer, source, topic LIMIT 1
    ) n
)
SELECT k.consumer, k.source, k.topic, p.event_id, p.type, p.sequence, p.previous, p.reason, p.attempts,
       CASE WHEN p.next_at < 'infinity' THEN p.next_at END, p.last_error, p.parked_at
FROM known k
CROSS JOIN LATERAL (
    (SELECT * FROM {schema}.parked
    WHERE consumer = k.consumer AND source = k.source AND topic = k.topic AND subject = $1::text AND sequence > 0
    ORDER BY sequence LIMIT $4::bigint)
    UNION ALL
    (SELECT * FROM {schema}.parked
    WHERE consumer = k.consumer AND source = k.source AND topic = k.topic AND subject = $1::text AND sequence = 0
    LIMIT $4::bigint)
) p
WHERE $2::text = '' OR k.topic = $2::text
ORDER BY k.consumer, k.source, k.topic, p.sequence, p.event_id
LIMIT $3::bigint

-- name: StreamEvents
-- The newest events of each stream.
SELECT k.source, k.topic, o.id, o.type, o.sequence, o.previous, o.recorded_at, a.acked_at
FROM unnest($2::text[], $3::text[]) AS k (source, topic)
CROSS JOIN LATERAL (
    SELECT id, type, sequence, previous, recorded_at FROM {schema}.outbox
    WHERE source = k.source AND topic = k.topic AND subject = $1::text AND sequence > 0
    ORDER BY sequence DESC LIMIT $4::bigint
) o
LEFT JOIN {schema}.outbox_ack a ON a.id = o.id
ORDER BY k.source, k.topic, o.sequence DESC
