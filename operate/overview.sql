-- name: ServiceName
SELECT COALESCE(source, ''), now() FROM {schema}.installation LIMIT 1

-- name: RejectedCount
SELECT pg_catalog.count(*) FROM (SELECT FROM {schema}.outbox_rejected ORDER BY id LIMIT $1::bigint) r

-- name: AckPaths
-- How the newest confirmed events reached the broker.
SELECT a.path, pg_catalog.count(*)
FROM (SELECT path FROM {schema}.outbox_ack ORDER BY id DESC LIMIT $1::bigint) a
GROUP BY a.path
ORDER BY a.path

-- name: SagaStates
-- The states of running sagas, found one after the other by an index, each counted up to $2.
WITH RECURSIVE known AS (
    (SELECT name, version, state FROM {schema}.saga WHERE finished_at IS NULL ORDER BY name, version, state LIMIT 1)
    UNION ALL
    SELECT n.name, n.version, n.state FROM known k CROSS JOIN LATERAL (
        SELECT name, version, state FROM {schema}.saga s
        WHERE s.finished_at IS NULL AND (s.name, s.version, s.state) > (k.name, k.version, k.state)
        ORDER BY name, version, state LIMIT 1
    ) n
)
SELECT k.name, k.version, k.state, (
    SELECT pg_catalog.count(*) FROM (
        SELECT FROM {schema}.saga s
        WHERE s.finished_at IS NULL AND s.name = k.name AND s.version = k.version AND s.state = k.state
        LIMIT $2::bigint
    ) running)
FROM known k
ORDER BY k.name, k.version, k.state
LIMIT $1::bigint

-- name: SagasFinished
-- The sagas that finished since $1, by name and state: the last $2.
SELECT name, state, pg_catalog.count(*)
FROM (
    SELECT name, state FROM {schema}.saga WHERE finished_at >= now() - pg_catalog.make_interval(secs => $1::float8)
    ORDER BY finished_at DESC LIMIT $2::bigint
) f
GROUP BY name, state
ORDER BY name, state

-- name: ParkedStreamCount
-- The streams that are parked, found one after the other by the index of events with an order, up to $1, and how many of them have a dead
-- letter as their head.
WITH RECURSIVE streams AS (
    (SELECT consumer, source, topic, subject, 1 AS n FROM {schema}.parked WHERE sequence > 0
    ORDER BY consumer, source, topic, subject, previous LIMIT 1)
    UNION ALL
    SELECT n.consumer, n.source, n.topic, n.subject, s.n + 1 FROM streams s CROSS JOIN LATERAL (
        SELECT consumer, source, topic, subject FROM {schema}.parked p
        WHERE p.sequence > 0 AND (p.consumer, p.source, p.topic, p.subject) > (s.consumer, s.source, s.topic, s.subject)
        ORDER BY consumer, source, topic, subject, previous LIMIT 1
    ) n WHERE s.n < $1::bigint
)
SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE h.reason = 'dead')
FROM streams s CROSS JOIN LATERAL (
    SELECT reason FROM {schema}.parked p
    WHERE p.consumer = s.consumer AND p.source = s.source AND p.topic = s.topic AND p.subject = s.subject AND p.sequence > 0
    ORDER BY p.sequence LIMIT 1
) h

-- name: Consumers
-- Events are counted up to $2 by indexes that have all that is needed, so that their rows are hardly read.
SELECT c.name, c.group_name, c.born_at, extract(epoch FROM c.inbox_retention)::float8, extract(epoch FROM c.position_retention)::float8,
    ARRAY(SELECT t.topic FROM {schema}.consumer_topic t WHERE t.consumer = c.name ORDER BY t.topic),
    ARRAY(SELECT h.topic FROM {schema}.consumer_handler h WHERE h.consumer = c.name ORDER BY h.topic, h.type),
    ARRAY(SELECT h.type FROM {schema}.consumer_handler h WHERE h.consumer = c.name ORDER BY h.topic, h.type),
    (SELECT pg_catalog.count(*) FROM (
        SELECT FROM {schema}.parked p WHERE p.consumer = c.name AND p.reason <> 'dead' ORDER BY p.parked_at LIMIT $2::bigint
    ) waiting),
    (SELECT pg_catalog.count(*) FROM (
        SELECT FROM {schema}.parked p WHERE p.consumer = c.name AND p.reason = 'dead' ORDER BY p.parked_at LIMIT $2::bigint
    ) dead)
FROM {schema}.consumer c
ORDER BY c.name
LIMIT $1::bigint

-- name: RecentlyHandled
-- The newest events without order that consumers have handled, with ids before $2. (A plain event_id in ORDER BY would be the text,
-- which no index sorts.)
SELECT i.consumer, i.event_id::text, i.handled_at
FROM {schema}.inbox i
WHERE i.event_id < $2::text::uuid
ORDER BY i.event_id DESC
LIMIT $1::bigint

-- name: RecentlyHandledInOrder
-- The newest events with order of this schema's outbox whose handling is the last that a consumer's position records. (The OFFSET has
-- positions looked up one by one.)
SELECT pos.consumer, o.recorded_at, pos.handled_at
FROM (
    SELECT source, topic, subject, sequence, recorded_at FROM {schema}.outbox ORDER BY id DESC LIMIT $1::bigint
) o
JOIN {schema}.consumer_topic t ON t.topic = o.topic
CROSS JOIN LATERAL (
    SELECT p.consumer, p.handled_at FROM {schema}.position p
    WHERE p.consumer = t.consumer AND p.source = o.source AND p.topic = o.topic AND p.subject = o.subject AND p.sequence = o.sequence
      AND p.handled_at IS NOT NULL
    OFFSET 0
) pos
WHERE o.sequence > 0
