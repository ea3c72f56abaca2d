-- name: RejectedEvents
-- The next rejected events after id $6, the oldest first, without their bodies. Empty text means any. Those of a topic and with an id are
-- found by an index. At most $8 rows are looked at; the last columns of each row, and the row without an event that comes last, say how
-- far that went. A branch of the union that isn't wanted reads nothing. (The OFFSET has events looked up one by one.)
WITH scanned AS MATERIALIZED (
    (SELECT id, reason, attempts, rejected_at, next_at FROM {schema}.outbox_rejected
    WHERE $1::text = '' AND $3::text = '' AND id > $6::text::uuid
    ORDER BY id LIMIT $8::bigint)
    UNION ALL
    (SELECT id, reason, attempts, rejected_at, next_at FROM {schema}.outbox_rejected
    WHERE $1::text = '' AND $3::text <> '' AND topic = $3::text AND id > $6::text::uuid
    ORDER BY id LIMIT $8::bigint)
    UNION ALL
    (SELECT id, reason, attempts, rejected_at, next_at FROM {schema}.outbox_rejected
    WHERE $1::text <> '' AND id = NULLIF($1::text, '')::uuid AND id > $6::text::uuid)
), found AS (
    SELECT o.*, r.reason, r.attempts, r.rejected_at, r.next_at
    FROM scanned r CROSS JOIN LATERAL (
        SELECT id, source, topic, type, subject, sequence, previous, recorded_at, content_type, pg_catalog.octet_length(body) AS size
        FROM {schema}.outbox WHERE id = r.id OFFSET 0
    ) o
    WHERE ($2::text = '' OR o.source = $2::text) AND ($3::text = '' OR o.topic = $3::text) AND ($4::text = '' OR o.type = $4::text)
      AND ($5::text = '' OR o.subject = $5::text)
    ORDER BY r.id
    LIMIT $7::bigint
)
SELECT f.id::text, f.source, f.topic, f.type, f.subject, f.sequence, f.previous, f.recorded_at, f.content_type, f.size,
    f.reason, f.attempts, f.rejected_at, CASE WHEN f.next_at < 'infinity'::timestamptz THEN f.next_at END,
    (SELECT pg_catalog.count(*) FROM scanned), (SELECT s.id::text FROM scanned s ORDER BY s.id DESC LIMIT 1)
FROM (SELECT 1) one LEFT JOIN found f ON true
ORDER BY f.id

-- name: LockRejected
-- Those of $1 that are still rejected, in the order of streams, which is the order of locks.
SELECT r.id::text
FROM {schema}.outbox_rejected r JOIN {schema}.outbox o ON o.id = r.id
WHERE r.id = ANY ($1::text[]::uuid[]) AND NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = r.id OFFSET 0)
ORDER BY o.source, o.subject, o.sequence, r.id
FOR UPDATE OF r

-- name: RetryRejected
-- Their topics are due too, so that the other events of a topic follow the first that the broker accepts.
WITH topics AS (
    UPDATE {schema}.outbox_rejected_topic t SET next_at = clock_timestamp()
    WHERE t.topic IN (SELECT r.topic FROM {schema}.outbox_rejected r WHERE r.id = ANY ($1::text[]::uuid[]))
)
UPDATE {schema}.outbox_rejected SET next_at = CASE WHEN next_at = 'infinity' THEN next_at ELSE clock_timestamp() END
WHERE id = ANY ($1::text[]::uuid[])

-- name: DiscardRejected
-- The row of the event becomes that of its replacement. The replacement is sent unless the broker rejects all events of the
-- topic, or it is a rejected replacement itself: then it counts as acknowledged, and is kept for requests of missing events.
-- An event that is not ordered needs no replacement.
WITH discarded AS MATERIALIZED (
    SELECT o.*, r.next_at = 'infinity' AS of_topic
    FROM {schema}.outbox_rejected r JOIN {schema}.outbox o ON o.id = r.id
    WHERE r.id = ANY ($1::text[]::uuid[])
), kept AS (
    INSERT INTO {schema}.outbox_discarded (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, headers, body, reason)
    SELECT id, source, topic, type, subject, sequence, previous, recorded_at, content_type, headers, body, $2::text FROM discarded
    WHERE type <> $3::text
    ON CONFLICT (id) DO NOTHING
), settled AS (
    DELETE FROM {schema}.outbox_rejected WHERE id IN (SELECT id FROM discarded)
), acked AS (
    INSERT INTO {schema}.outbox_ack (id) SELECT id FROM discarded WHERE of_topic OR sequence = 0 OR type = $3::text ORDER BY id ON CONFLICT DO NOTHING
)
UPDATE {schema}.outbox o
SET type = $3::text, content_type = 'application/json', headers = NULL, xid = pg_catalog.pg_current_xact_id(),
    body = pg_catalog.convert_to(pg_catalog.jsonb_build_object('type', d.type, 'reason', $2::text)::text, 'UTF8')
FROM discarded d
WHERE o.id = d.id

-- name: RedirectRejected
-- The event takes the next place of its stream in the other topic ($2), as if it were published there now. In the old topic
-- an event with another id ($3) replaces it.
WITH old AS MATERIALIZED (
    SELECT o.*, r.next_at = 'infinity' AS of_topic
    FROM {schema}.outbox_rejected r JOIN {schema}.outbox o ON o.id = r.id
    WHERE r.id = $1::text::uuid
), advanced AS (
    INSERT INTO {schema}.stream AS s (source, topic, subject, previous, sequence)
    SELECT source, $2::text, subject, 0,
        GREATEST((EXTRACT(epoch FROM clock_timestamp()) * 1000000::numeric)::bigint, (SELECT stream_floor + 1 FROM {schema}.outbox_retention))
    FROM old WHERE sequence > 0
    ON CONFLICT (source, topic, subject) DO UPDATE SET
        previous = s.sequence,
        sequence = GREATEST(s.sequence + 1, (EXTRACT(epoch FROM clock_timestamp()) * 1000000::numeric)::bigint)
    RETURNING previous, sequence
), replacement AS (
    INSERT INTO {schema}.outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, body)
    SELECT $3::text::uuid, source, topic, $4::text, subject, sequence, previous, recorded_at, 'application/json',
        pg_catalog.convert_to(pg_catalog.jsonb_build_object('type', type, 'reason', 'redirected to topic ' || $2::text)::text, 'UTF8')
    FROM old WHERE sequence > 0
), acked AS (
    INSERT INTO {schema}.outbox_ack (id) SELECT $3::text::uuid FROM old WHERE sequence > 0 AND of_topic
), settled AS (
    DELETE FROM {schema}.outbox_rejected WHERE id IN (SELECT id FROM old)
)
UPDATE {schema}.outbox o
SET topic = $2::text, sequence = COALESCE((SELECT sequence FROM advanced), 0), previous = COALESCE((SELECT previous FROM advanced), 0),
    xid = pg_catalog.pg_current_xact_id()
FROM old
WHERE o.id = old.id

-- name: RejectedTopics
SELECT t.topic, t.reason,
    (SELECT pg_catalog.count(*) FROM (SELECT FROM {schema}.outbox_rejected r WHERE r.topic = t.topic AND r.next_at = 'infinity' LIMIT $2::bigint) e),
    t.attempts, t.rejected_at, t.next_at
FROM {schema}.outbox_rejected_topic t
ORDER BY t.topic
LIMIT $1::bigint
