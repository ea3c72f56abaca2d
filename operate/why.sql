-- name: Horizon
-- The oldest events that the outbox keeps, and the longest retentions of consumers.
SELECT (SELECT id FROM {schema}.outbox ORDER BY id LIMIT 1),
    (SELECT recorded_at FROM {schema}.outbox ORDER BY id LIMIT 1),
    COALESCE((SELECT extract(epoch FROM pg_catalog.max(inbox_retention))::float8 FROM {schema}.consumer), 0::float8),
    COALESCE((SELECT extract(epoch FROM pg_catalog.max(position_retention))::float8 FROM {schema}.consumer), 0::float8)

-- name: EventEvidence
-- In which transaction an event was published and, if Postgres keeps that, when it committed; and how it reached the broker.
SELECT o.xid::text,
    CASE WHEN pg_catalog.current_setting('track_commit_timestamp') = 'on' THEN pg_catalog.pg_xact_commit_timestamp(o.xid::xid) END,
    COALESCE(a.path, 0::smallint)
FROM {schema}.outbox o
LEFT JOIN {schema}.outbox_ack a ON a.id = o.id
WHERE o.id = $1::text::uuid

-- name: EventReaders
-- What each consumer of topic $3 has recorded of event $1 of type $6 in stream ($2, $3, $4) at sequence $5. Counts at most $8 events
-- behind it. (As in ParkedEvent, parked events are looked up consumer by consumer.)
SELECT c.name, c.group_name, t.born_at, CASE WHEN t.begin_at > '-infinity'::timestamptz THEN t.begin_at END,
       (SELECT h.registered_at FROM {schema}.consumer_handler h WHERE h.consumer = c.name AND h.topic = $3::text AND h.type = $6::text),
       COALESCE(pos.sequence, 0::bigint), pos.handled_at, pos.took_ms, COALESCE(pos.skipped, '{}'::bigint[]), i.handled_at,
       COALESCE(CASE WHEN pos.sequence = $5::bigint THEN pos.failed_attempts ELSE i.failed_attempts END, 0),
       p.reason, p.attempts, CASE WHEN p.next_at < 'infinity' THEN p.next_at END, p.last_error, p.parked_at,
       head.event_id, head.reason, COALESCE(head.last_error, ''), COALESCE(head.attempts, 0), head.parked_at,
       (SELECT pg_catalog.count(*) FROM (
           SELECT FROM {schema}.parked b
           WHERE p.event_id IS NOT NULL AND b.consumer = c.name AND b.source = $2::text AND b.topic = $3::text AND b.subject = $4::text
             AND b.sequence > $5::bigint AND $5::bigint > 0
           LIMIT $8::bigint
       ) behind)
FROM {schema}.consumer c
LEFT JOIN {schema}.consumer_topic t ON t.consumer = c.name AND t.topic = $3::text
LEFT JOIN {schema}.position pos
    ON pos.consumer = c.name AND pos.source = $2::text AND pos.topic = $3::text AND pos.subject = $4::text AND $5::bigint > 0
LEFT JOIN {schema}.inbox i ON i.event_id = $1::text::uuid AND ($2::text = '' OR i.source = $2::text) AND i.consumer = c.name
LEFT JOIN LATERAL (
    SELECT * FROM {schema}.parked WHERE consumer = c.name AND event_id = $1::text::uuid AND ($2::text = '' OR source = $2::text) OFFSET 0
) p ON true
LEFT JOIN LATERAL (
    SELECT event_id, reason, last_error, attempts, parked_at FROM {schema}.parked
    WHERE consumer = c.name AND source = $2::text AND topic = $3::text AND subject = $4::text AND sequence > 0 AND sequence < $5::bigint
    ORDER BY sequence LIMIT 1
) head ON p.event_id IS NOT NULL
WHERE t.topic IS NOT NULL OR i.event_id IS NOT NULL OR p.event_id IS NOT NULL
ORDER BY c.name
LIMIT $7::bigint

-- name: ServiceRuns
-- Whether a process of the service runs: one of them holds the lease of the outbox's sweep.
SELECT EXISTS (SELECT FROM {schema}.lease WHERE name = 'outbox sweep' AND expires_at > clock_timestamp())

-- name: ParkedBehind
-- How many events of a stream are parked behind one; counts at most $6.
SELECT pg_catalog.count(*) FROM (
    SELECT FROM {schema}.parked
    WHERE consumer = $1::text AND source = $2::text AND topic = $3::text AND subject = $4::text AND sequence > $5::bigint AND $5::bigint > 0
    LIMIT $6::bigint
) behind

-- name: CausedTransitions
-- The transitions of the sagas of the keys $1 that an event caused. (The history has no index on causes.)
SELECT h.name, h.key, h.from_state, h.to_state, h.changed_at
FROM {schema}.saga s JOIN {schema}.saga_history h USING (name, key)
WHERE s.key = ANY ($1::text[]) AND h.cause_id = $2::text::uuid
ORDER BY h.changed_at
LIMIT 100

-- name: WaitingOf
-- The rows of what waits for sagas because of event $1: those of key $2, and those among the newest $3, as there is no index by event. How
-- many of these were looked at.
WITH newest AS MATERIALIZED (
    SELECT id, event_id FROM {schema}.saga_waiting ORDER BY id DESC LIMIT $3::bigint
)
SELECT ARRAY(SELECT id FROM {schema}.saga_waiting WHERE $2::text <> '' AND key = $2::text AND event_id = $1::text::uuid
        UNION SELECT id FROM newest WHERE event_id = $1::text::uuid ORDER BY id LIMIT 10),
    (SELECT pg_catalog.count(*) FROM newest)

-- name: RejectedOf
-- The first $4 events of subject $1 that the broker rejects, among the events $2 and the first $3 that are rejected. (The OFFSET has events
-- looked up one by one.)
WITH rejected AS MATERIALIZED (
    (SELECT id, reason, attempts, rejected_at FROM {schema}.outbox_rejected WHERE id = ANY ($2::text[]::uuid[]))
    UNION ALL
    (SELECT id, reason, attempts, rejected_at FROM (SELECT * FROM {schema}.outbox_rejected ORDER BY id LIMIT $3::bigint) f
    WHERE id <> ALL ($2::text[]::uuid[]))
)
SELECT o.id, o.type, o.topic, o.recorded_at, r.reason, r.attempts, r.rejected_at
FROM rejected r
CROSS JOIN LATERAL (SELECT id, type, topic, subject, recorded_at FROM {schema}.outbox WHERE id = r.id OFFSET 0) o
WHERE o.subject = $1::text AND NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = r.id OFFSET 0)
ORDER BY o.id
LIMIT $4::bigint

-- name: EventAt
-- The event of a stream with a sequence.
SELECT id FROM {schema}.outbox
WHERE source = $1::text AND topic = $2::text AND subject = $3::text AND sequence = $4::bigint AND sequence > 0

-- name: PublishedWhileHandled
-- The events that handlers published while they handled event $1; at most $2.
SELECT id, recorded_at, COALESCE(cause_consumer, ''), type, topic, subject
FROM (SELECT * FROM {schema}.outbox WHERE cause = $1::text::uuid LIMIT $2::bigint) caused
ORDER BY id
