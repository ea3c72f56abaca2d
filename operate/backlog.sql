-- name: SweepState
-- A watermark ahead of all transactions comes from another cluster: the sweep begins at 0 then, and so does this report.
SELECT CASE WHEN foreign_to THEN '0' ELSE mark::text END, CASE WHEN foreign_to THEN '0' ELSE seen::text END,
    CASE WHEN foreign_to THEN '{}' ELSE again::text[] END, swept_at
FROM {schema}.outbox_sweep, LATERAL (SELECT GREATEST(mark, seen) > pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()) AS foreign_to) f

-- name: OwedByTopic
-- Counts the oldest $3 owed events, rejected ones included. Only transactions from $1 on and those of $2 can have events that
-- are neither acknowledged nor rejected. (OFFSET 0 makes Postgres look acknowledgements up row by row, and a transaction is a range as in the
-- outbox's sweep.)
SELECT topic, pg_catalog.count(*), pg_catalog.min(recorded_at)
FROM (
    (SELECT o.topic, o.recorded_at, o.xid FROM pg_catalog.unnest($2::text[]) AS x (xid) CROSS JOIN LATERAL (
        SELECT topic, recorded_at, xid FROM {schema}.outbox o
        WHERE o.xid BETWEEN x.xid::xid8 AND x.xid::xid8 AND NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = o.id OFFSET 0)
          AND NOT EXISTS (SELECT FROM {schema}.outbox_rejected r WHERE r.id = o.id OFFSET 0)
        ORDER BY o.xid
        LIMIT $3::bigint) o
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

-- name: ParkedByConsumer
-- Counts at most $2 dead letters of each consumer and $2 other events, the longest parked, which bounds the cost.
SELECT c.name, w.reason, pg_catalog.count(*), pg_catalog.min(w.parked_at), pg_catalog.min(w.next_at) FILTER (WHERE w.next_at < 'infinity')
FROM {schema}.consumer c
CROSS JOIN LATERAL (
    (SELECT reason, parked_at, next_at FROM {schema}.parked WHERE consumer = c.name AND reason <> 'dead' ORDER BY parked_at LIMIT $2::bigint)
    UNION ALL
    (SELECT reason, parked_at, next_at FROM {schema}.parked WHERE consumer = c.name AND reason = 'dead' ORDER BY parked_at LIMIT $2::bigint)
) w
GROUP BY c.name, w.reason
ORDER BY c.name, w.reason
LIMIT $1::bigint

-- name: Groups
-- The groups of consumers at the broker, and the topics that they read.
SELECT c.name, c.group_name, t.topic
FROM {schema}.consumer c JOIN {schema}.consumer_topic t ON t.consumer = c.name
WHERE c.group_name <> ''
ORDER BY c.name, t.topic
LIMIT $1::bigint

-- name: TimeoutCounts
SELECT (SELECT pg_catalog.count(*) FROM (SELECT FROM {schema}.timeout LIMIT $1::bigint) t),
       (SELECT pg_catalog.count(*) FROM (SELECT FROM {schema}.timeout WHERE due_at <= now() LIMIT $1::bigint) t),
       (SELECT pg_catalog.count(*) FROM (SELECT FROM {schema}.timeout WHERE stuck_at IS NOT NULL LIMIT $1::bigint) t),
       (SELECT due_at FROM {schema}.timeout WHERE due_at <= now() ORDER BY due_at LIMIT 1),
       (SELECT due_at FROM {schema}.timeout WHERE due_at > now() ORDER BY due_at LIMIT 1)

-- name: WaitingBySaga
-- Counts those that failed or expired, up to $1, and the others of the first $1.
SELECT saga, status, pg_catalog.count(*), pg_catalog.min(arrived_at)
FROM (
    (SELECT saga, status, arrived_at FROM {schema}.saga_waiting WHERE status IN ('failed', 'expired') ORDER BY changed_at LIMIT $1::bigint)
    UNION ALL
    (SELECT saga, status, arrived_at FROM (SELECT saga, status, arrived_at FROM {schema}.saga_waiting ORDER BY id LIMIT $1::bigint) f
    WHERE status IN ('waiting', 'retry'))
) w
GROUP BY saga, status
ORDER BY saga, status

-- name: RunningSagas
-- The recursion finds the few names, versions and states with an index lookup each. Looks at $1 sagas of each, in no order, as no index has
-- the time.
WITH RECURSIVE known AS (
    (SELECT name, version, state FROM {schema}.saga WHERE finished_at IS NULL ORDER BY name, version, state LIMIT 1)
    UNION ALL
    SELECT n.name, n.version, n.state FROM known k CROSS JOIN LATERAL (
        SELECT s.name, s.version, s.state FROM {schema}.saga s
        WHERE s.finished_at IS NULL AND (s.name, s.version, s.state) > (k.name, k.version, k.state)
        ORDER BY s.name, s.version, s.state LIMIT 1
    ) n
)
SELECT k.name, k.state, pg_catalog.sum(r.sagas)::bigint,
    GREATEST(EXTRACT(epoch FROM clock_timestamp() - pg_catalog.min(r.oldest))::float8, 0::float8),
    (pg_catalog.array_agg(r.keys[1] ORDER BY r.oldest))[1]
FROM known k CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*) AS sagas, pg_catalog.min(c.changed_at) AS oldest, pg_catalog.array_agg(c.key ORDER BY c.changed_at) AS keys FROM (
        SELECT s.key, s.changed_at FROM {schema}.saga s
        WHERE s.finished_at IS NULL AND s.name = k.name AND s.version = k.version AND s.state = k.state
        LIMIT $1::bigint
    ) c
) r
GROUP BY k.name, k.state
ORDER BY k.name, k.state
LIMIT $2::bigint
