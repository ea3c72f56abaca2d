-- name: Reject
-- Records events that the broker has rejected, unless they are acknowledged. If the reason concerns the whole topic, one event
-- of the topic is retried; else the event itself. The pauses double up to a minute. In order, so that two can't deadlock.
WITH rejected AS MATERIALIZED (
    SELECT * FROM ROWS FROM (
        pg_catalog.unnest($1::text[]::uuid[]), pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::boolean[])
    ) AS r (id, topic, reason, of_topic)
), topics AS (
    INSERT INTO {schema}.outbox_rejected_topic AS t (topic, reason, next_at)
    SELECT DISTINCT ON (topic) topic, reason, clock_timestamp() + INTERVAL '2 seconds' FROM rejected WHERE of_topic ORDER BY topic
    ON CONFLICT (topic) DO UPDATE SET
        reason = excluded.reason,
        attempts = t.attempts + 1,
        next_at = clock_timestamp() + pg_catalog.make_interval(secs => LEAST(60, pg_catalog.power(2::float8, LEAST(t.attempts, 6)::float8 + 1::float8)))
    WHERE t.next_at <= clock_timestamp()
)
INSERT INTO {schema}.outbox_rejected AS o (id, topic, reason, next_at)
SELECT r.id, r.topic, r.reason, CASE WHEN r.of_topic THEN 'infinity' ELSE clock_timestamp() + INTERVAL '2 seconds' END
FROM rejected r
WHERE NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = r.id OFFSET 0)
ORDER BY r.id
ON CONFLICT (id) DO UPDATE SET
    topic = excluded.topic,
    reason = excluded.reason,
    attempts = o.attempts + 1,
    next_at = CASE WHEN excluded.next_at = 'infinity' THEN excluded.next_at
        ELSE clock_timestamp() + pg_catalog.make_interval(secs => LEAST(60, pg_catalog.power(2::float8, LEAST(o.attempts, 6)::float8 + 1::float8))) END

-- name: RejectedDue
-- The events to retry: one event of each topic that is due, and events that are due by themselves.
SELECT d.id::text, COALESCE(o.topic, ''), COALESCE(o.sequence, 0), COALESCE(o.recorded_at, 'epoch'), COALESCE(pg_catalog.octet_length(o.body), 0)
FROM (
    (SELECT first.id FROM {schema}.outbox_rejected_topic t CROSS JOIN LATERAL (
        SELECT r.id FROM {schema}.outbox_rejected r WHERE r.topic = t.topic AND r.next_at = 'infinity' ORDER BY r.id LIMIT 1) first
    WHERE t.next_at <= clock_timestamp())
    UNION ALL
    (SELECT r.id FROM {schema}.outbox_rejected r
    WHERE r.next_at <= clock_timestamp() AND r.next_at < 'infinity'
    ORDER BY r.next_at, r.id
    LIMIT $1::bigint)
) d
LEFT JOIN LATERAL (SELECT * FROM {schema}.outbox o WHERE o.id = d.id OFFSET 0) o ON true

-- name: Accepted
-- Deletes the rejections of $1, which the broker has accepted or which need not be sent any more. Other events of their topics
-- ($2) are retried at once.
WITH gone AS (
    DELETE FROM {schema}.outbox_rejected WHERE id = ANY ($1::text[]::uuid[])
), topics AS (
    DELETE FROM {schema}.outbox_rejected_topic WHERE topic = ANY ($2::text[])
)
UPDATE {schema}.outbox_rejected SET next_at = clock_timestamp()
WHERE topic = ANY ($2::text[]) AND next_at = 'infinity' AND id <> ALL ($1::text[]::uuid[])

-- name: CountRejected
-- Writes the counts of rejected events to the sweep's row, which all processes read.
WITH idle AS (
    DELETE FROM {schema}.outbox_rejected_topic t WHERE NOT EXISTS (SELECT FROM {schema}.outbox_rejected r WHERE r.topic = t.topic)
), counted AS (
    SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'topic', c.topic, 'events', c.events, 'since', c.since, 'reason', COALESCE(t.reason, c.reason)) ORDER BY c.topic), '[]') AS rejected
    FROM (
        SELECT r.topic, pg_catalog.count(*) AS events, pg_catalog.max(r.reason) AS reason,
            EXTRACT(epoch FROM pg_catalog.min(r.rejected_at))::bigint AS since
        FROM {schema}.outbox_rejected r GROUP BY r.topic
    ) c
    LEFT JOIN {schema}.outbox_rejected_topic t ON t.topic = c.topic
)
UPDATE {schema}.outbox_sweep s SET rejected = counted.rejected
FROM counted WHERE s.rejected IS DISTINCT FROM counted.rejected
