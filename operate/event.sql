-- name: Event
SELECT o.source, o.topic, o.type, o.subject, o.sequence, o.previous, o.recorded_at, o.content_type, o.headers, o.body,
       a.acked_at, r.reason, r.attempts, r.rejected_at, o.cause, o.cause_consumer
FROM {schema}.outbox o
LEFT JOIN {schema}.outbox_ack a ON a.id = o.id
LEFT JOIN {schema}.outbox_rejected r ON r.id = o.id
WHERE o.id = $1::text::uuid

-- name: ParkedEvent
-- The event as one of its consumers has parked it. (Here and below, the OFFSET has parked events looked up consumer by consumer, by the
-- index: Postgres assumes that a table such as consumer, which is too small to be analyzed, has hundreds of rows.)
SELECT p.source, p.topic, p.type, p.subject, p.sequence, p.previous, p.recorded_at, p.content_type, p.headers, p.body, p.timeout_key, p.timeout_name
FROM {schema}.consumer c CROSS JOIN LATERAL (SELECT * FROM {schema}.parked WHERE consumer = c.name AND event_id = $1::text::uuid OFFSET 0) p
LIMIT 1

-- name: EventConsumers
-- What each consumer of topic $3 has recorded of event $1 in stream ($2, $3, $4) at sequence $5.
SELECT c.name, t.born_at, COALESCE(pos.sequence, 0), i.handled_at,
       p.reason, p.attempts, CASE WHEN p.next_at < 'infinity' THEN p.next_at END, p.last_error, p.parked_at,
       head.event_id, head.reason
FROM {schema}.consumer c
LEFT JOIN {schema}.consumer_topic t ON t.consumer = c.name AND t.topic = $3::text
LEFT JOIN {schema}.position pos
    ON pos.consumer = c.name AND pos.source = $2::text AND pos.topic = $3::text AND pos.subject = $4::text AND $5::bigint > 0
LEFT JOIN {schema}.inbox i ON i.event_id = $1::text::uuid AND ($2::text = '' OR i.source = $2::text) AND i.consumer = c.name
LEFT JOIN LATERAL (
    SELECT * FROM {schema}.parked WHERE consumer = c.name AND event_id = $1::text::uuid AND ($2::text = '' OR source = $2::text) OFFSET 0
) p ON true
LEFT JOIN LATERAL (
    SELECT event_id, reason FROM {schema}.parked
    WHERE consumer = c.name AND source = $2::text AND topic = $3::text AND subject = $4::text AND sequence > 0 AND sequence < $5::bigint
    ORDER BY sequence LIMIT 1
) head ON p.event_id IS NOT NULL
WHERE t.topic IS NOT NULL OR i.event_id IS NOT NULL OR p.event_id IS NOT NULL
ORDER BY c.name
LIMIT $6::bigint

-- name: Discarded
SELECT type, reason, discarded_at FROM {schema}.outbox_discarded WHERE id = $1::text::uuid
