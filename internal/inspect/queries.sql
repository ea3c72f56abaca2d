-- name: Schemas
SELECT n.nspname::text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = 'outbox_sweep'
ORDER BY n.nspname
LIMIT $1::bigint

-- name: Event
SELECT o.source, o.topic, o.type, o.subject, o.sequence, o.previous, o.recorded_at, o.content_type, o.body, a.acked_at
FROM {schema}.outbox o LEFT JOIN {schema}.outbox_ack a ON a.id = o.id
WHERE o.id = $1::text::uuid

-- name: ParkedEvent
-- The event itself, as any consumer has parked it.
SELECT p.source, p.topic, p.type, p.subject, p.sequence, p.previous, p.recorded_at, p.content_type, p.body, p.timeout_key, p.timeout_name
FROM {schema}.consumer c JOIN {schema}.parked p ON p.consumer = c.name AND p.event_id = $1::text::uuid
LIMIT 1

-- name: EventConsumers
-- What each consumer that reads topic $3 knows of event $1 in stream ($2, $3, $4) at sequence $5.
SELECT c.name, t.born_at, COALESCE(pos.sequence, 0), i.handled_at,
       p.reason, p.attempts, CASE WHEN p.next_at < 'infinity' THEN p.next_at END, p.last_error, p.parked_at,
       head.event_id, head.reason
FROM {schema}.consumer c
LEFT JOIN {schema}.consumer_topic t ON t.consumer = c.name AND t.topic = $3::text
LEFT JOIN {schema}.position pos
    ON pos.consumer = c.name AND pos.source = $2::text AND pos.topic = $3::text AND pos.subject = $4::text AND $5::bigint > 0
LEFT JOIN {schema}.inbox i ON i.event_id = $1::text::uuid AND ($2::text = '' OR i.source = $2::text) AND i.consumer = c.name
LEFT JOIN {schema}.parked p ON p.consumer = c.name AND p.event_id = $1::text::uuid AND ($2::text = '' OR p.source = $2::text)
LEFT JOIN LATERAL (
    SELECT event_id, reason FROM {schema}.parked
    WHERE consumer = c.name AND source = $2::text AND topic = $3::text AND subject = $4::text AND sequence > 0 AND sequence < $5::bigint
    ORDER BY sequence LIMIT 1
) head ON p.event_id IS NOT NULL
WHERE t.topic IS NOT NULL OR i.event_id IS NOT NULL OR p.event_id IS NOT NULL
ORDER BY c.name
LIMIT $6::bigint

-- name: Streams
-- No index begins with the subject: the sources and topics, which are few, are found by hopping through the key's.
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
-- Hops as in Streams. How many events come after the position is known of streams that this database publishes.
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

-- name: StreamParked
-- Hops as in Streams.
WITH RECURSIVE known AS (
    (SELECT consumer, source, topic FROM {schema}.parked ORDER BY consumer, source, topic LIMIT 1)
    UNION ALL
    SELECT n.consumer, n.source, n.topic FROM known k CROSS JOIN LATERAL (
        SELECT consumer, source, topic FROM {schema}.parked p
        WHERE (p.consumer, p.source, p.topic) > (k.consumer, k.source, k.topic)
        ORDER BY consumer, source, topic LIMIT 1
    ) n
)
SELECT p.consumer, p.source, p.topic, p.event_id, p.type, p.sequence, p.previous, p.reason, p.attempts,
       CASE WHEN p.next_at < 'infinity' THEN p.next_at END, p.last_error, p.parked_at
FROM known k
JOIN {schema}.parked p ON p.consumer = k.consumer AND p.source = k.source AND p.topic = k.topic AND p.subject = $1::text
WHERE $2::text = '' OR p.topic = $2::text
ORDER BY p.consumer, p.source, p.topic, p.sequence
LIMIT $3::bigint

-- name: StreamEvents
-- The newest of each stream.
SELECT k.source, k.topic, o.id, o.type, o.sequence, o.recorded_at, a.acked_at
FROM unnest($2::text[], $3::text[]) AS k (source, topic)
CROSS JOIN LATERAL (
    SELECT id, type, sequence, recorded_at FROM {schema}.outbox
    WHERE source = k.source AND topic = k.topic AND subject = $1::text AND sequence > 0
    ORDER BY sequence DESC LIMIT $4::bigint
) o
LEFT JOIN {schema}.outbox_ack a ON a.id = o.id
ORDER BY k.source, k.topic, o.sequence DESC

-- name: Sweep
-- What is ahead of all transactions comes from another cluster; the sweep, too, begins at 0 then.
SELECT CASE WHEN foreign_to THEN '0' ELSE mark::text END, CASE WHEN foreign_to THEN '0' ELSE seen::text END,
    CASE WHEN foreign_to THEN '{}' ELSE again::text[] END, swept_at
FROM {schema}.outbox_sweep, LATERAL (SELECT GREATEST(mark, seen) > pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()) AS foreign_to) f

-- name: Owed
-- Of the oldest $3, those that the broker rejects included, among the transactions from $1 on and those of $2: all others'
-- rows are acked or rejected. (The OFFSET has acks looked up row by row.)
SELECT topic, pg_catalog.count(*), pg_catalog.min(recorded_at)
FROM (
    (SELECT o.topic, o.recorded_at, o.xid FROM {schema}.outbox o
    WHERE o.xid = ANY ($2::text[]::xid8[]) AND NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = o.id OFFSET 0)
      AND NOT EXISTS (SELECT FROM {schema}.outbox_rejected r WHERE r.id = o.id OFFSET 0)
    ORDER BY o.xid
    LIMIT $3::bigint)
    UNION ALL
    (SELECT o.topic, o.recorded_at, o.xid FROM {schema}.outbox o
    WHERE o.xid >= $1::text::xid8 AND NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = o.id OFFSET 0)
      AND NOT EXISTS (SELECT FROM {schema}.outbox_rejected r WHERE r.id = o.id OFFSET 0)
    ORDER BY o.xid
    LIMIT $3::bigint)
    UNION ALL
    (SELECT o.topic, o.recorded_at, o.xid FROM {schema}.outbox_rejected r JOIN {schema}.outbox o ON o.id = r.id
    WHERE NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = o.id OFFSET 0)
    ORDER BY r.id
    LIMIT $3::bigint)
    ORDER BY xid
    LIMIT $3::bigint
) owed
GROUP BY topic
ORDER BY topic

-- name: Parked
-- At most $2 of each consumer and kind, so that a count is never dear.
SELECT c.name, w.reason, pg_catalog.count(*), pg_catalog.min(w.parked_at), pg_catalog.min(w.next_at) FILTER (WHERE w.next_at < 'infinity')
FROM {schema}.consumer c
CROSS JOIN LATERAL (
    (SELECT reason, parked_at, next_at FROM {schema}.parked WHERE consumer = c.name AND reason <> 'dead' ORDER BY next_at LIMIT $2::bigint)
    UNION ALL
    (SELECT reason, parked_at, next_at FROM {schema}.parked WHERE consumer = c.name AND reason = 'dead' ORDER BY parked_at LIMIT $2::bigint)
) w
GROUP BY c.name, w.reason
ORDER BY c.name, w.reason
LIMIT $1::bigint

-- name: Armed
SELECT (SELECT pg_catalog.count(*) FROM (SELECT FROM {schema}.timeout LIMIT $1::bigint) t),
       (SELECT pg_catalog.count(*) FROM (SELECT FROM {schema}.timeout WHERE due_at <= now() LIMIT $1::bigint) t),
       (SELECT pg_catalog.count(*) FROM (SELECT FROM {schema}.timeout WHERE stuck_at IS NOT NULL LIMIT $1::bigint) t),
       (SELECT due_at FROM {schema}.timeout WHERE due_at <= now() ORDER BY due_at LIMIT 1),
       (SELECT due_at FROM {schema}.timeout WHERE due_at > now() ORDER BY due_at LIMIT 1)

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

-- name: WaitingForSagas
-- Of the first $1.
SELECT saga, status, pg_catalog.count(*), pg_catalog.min(arrived_at)
FROM (SELECT saga, status, arrived_at FROM {schema}.saga_waiting ORDER BY id LIMIT $1::bigint) w
GROUP BY saga, status
ORDER BY saga, status
