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

-- name: ParkedGroups
-- The parked events that are no dead letters, as DeadLetterGroups groups these, and by reason. The oldest $1 of each consumer are looked at,
-- and $1 altogether.
SELECT consumer, topic, type, reason, error, pg_catalog.count(*), pg_catalog.min(parked_at), pg_catalog.max(parked_at), pg_catalog.min(event_id::text)
FROM (
    SELECT consumer, topic, type, reason, parked_at, event_id,
        pg_catalog.regexp_replace(pg_catalog.left(last_error, 200), '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9]+', '…', 'g') AS error
    FROM (
        SELECT d.* FROM {schema}.consumer c CROSS JOIN LATERAL (
            SELECT consumer, topic, type, reason, parked_at, event_id, last_error FROM {schema}.parked
            WHERE consumer = c.name AND reason <> 'dead' ORDER BY parked_at LIMIT $1::bigint
        ) d LIMIT $1::bigint
    ) events
) g
GROUP BY consumer, topic, type, reason, error
ORDER BY 6 DESC, consumer, topic, type, reason, error
LIMIT $2::bigint

-- name: ParkedStreams
-- The next page of parked streams after ($1, $2, $3, $4), found one after the other by the index of events with an order, which has previous
-- as its last column: the event that each waits for, and how many wait behind it, up to $6. With $7, only those of a consumer, at which
-- ($1, $2, $3, $4) is: they follow each other, so the next stream of another one ends the list.
WITH RECURSIVE streams AS (
    SELECT f.consumer, f.source, f.topic, f.subject, 1 AS n FROM (
        SELECT consumer, source, topic, subject FROM {schema}.parked
        WHERE sequence > 0 AND (consumer, source, topic, subject) > ($1::text, $2::text, $3::text, $4::text)
        ORDER BY consumer, source, topic, subject, previous LIMIT 1
    ) f WHERE $7::text = '' OR f.consumer = $7::text
    UNION ALL
    SELECT n.consumer, n.source, n.topic, n.subject, s.n + 1 FROM streams s CROSS JOIN LATERAL (
        SELECT consumer, source, topic, subject FROM {schema}.parked p
        WHERE p.sequence > 0 AND (p.consumer, p.source, p.topic, p.subject) > (s.consumer, s.source, s.topic, s.subject)
        ORDER BY consumer, source, topic, subject, previous LIMIT 1
    ) n WHERE s.n < $5::bigint AND ($7::text = '' OR n.consumer = $7::text)
)
SELECT s.consumer, s.source, s.topic, s.subject, p.event_id::text, p.type, p.reason, p.attempts,
    CASE WHEN p.next_at < 'infinity'::timestamptz THEN p.next_at END, p.last_error, p.parked_at,
    (SELECT pg_catalog.count(*) FROM (
        SELECT FROM {schema}.parked b
        WHERE b.consumer = s.consumer AND b.source = s.source AND b.topic = s.topic AND b.subject = s.subject AND b.sequence > p.sequence
        LIMIT $6::bigint
    ) behind)
FROM streams s CROSS JOIN LATERAL (
    SELECT event_id, type, reason, attempts, next_at, last_error, parked_at, sequence FROM {schema}.parked h
    WHERE h.consumer = s.consumer AND h.source = s.source AND h.topic = s.topic AND h.subject = s.subject AND h.sequence > 0
    ORDER BY h.sequence LIMIT 1
) p
ORDER BY s.n
