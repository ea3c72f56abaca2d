-- name: Beginning
-- The oldest transaction that may be open or that has published an event, with an id after $1, that was recorded after $2.
SELECT LEAST(pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()), (
    SELECT y.xid FROM (SELECT xid FROM {schema}.outbox WHERE id > $1::text::uuid AND recorded_at > $2::timestamptz OFFSET 0) y ORDER BY y.xid LIMIT 1
))::text

-- name: PublishedByID
-- The next page of events, by id, that were recorded between $3 and $4; of transactions before $5, unless that is 0. (The OFFSETs
-- have acknowledgements looked up row by row. The limit is inside, so that a page costs the same wherever it is.)
SELECT p.id::text, p.source, p.topic, p.type, p.subject, p.sequence, p.recorded_at, p.xid::text,
    (SELECT a.acked_at FROM {schema}.outbox_ack a WHERE a.id = p.id OFFSET 0),
    EXISTS (SELECT FROM {schema}.outbox_rejected r WHERE r.id = p.id OFFSET 0),
    p.recorded_at >= $3::timestamptz AND p.recorded_at <= $4::timestamptz AND ($5::text = '0' OR p.xid < $5::text::xid8)
FROM (
    SELECT id, source, topic, type, subject, sequence, recorded_at, xid
    FROM {schema}.outbox
    WHERE id > $1::text::uuid AND id < $2::text::uuid
    ORDER BY id
    LIMIT $6::bigint
) p
ORDER BY p.id

-- name: PublishedByTransaction
-- The next page of events after ($1, $2), by transaction, of transactions that have ended and before which none is open.
SELECT p.id::text, p.source, p.topic, p.type, p.subject, p.sequence, p.recorded_at, p.xid::text,
    (SELECT a.acked_at FROM {schema}.outbox_ack a WHERE a.id = p.id OFFSET 0),
    EXISTS (SELECT FROM {schema}.outbox_rejected r WHERE r.id = p.id OFFSET 0),
    true
FROM (
    SELECT id, source, topic, type, subject, sequence, recorded_at, xid
    FROM {schema}.outbox o
    WHERE (o.xid, o.id) > ($1::text::xid8, $2::text::uuid) AND o.xid < pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())
    ORDER BY o.xid, o.id
    LIMIT $3::bigint
) p
ORDER BY p.xid, p.id

-- name: HeldBack
-- Whether events that were recorded before $1 are not read by transaction yet, because an older transaction is open.
SELECT EXISTS (
    SELECT FROM {schema}.outbox o
    WHERE o.xid >= pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) AND o.recorded_at <= $1::timestamptz
)

-- name: PublishedOf
-- The events with the ids $1.
SELECT p.id::text, p.source, p.topic, p.type, p.subject, p.sequence, p.recorded_at, p.xid::text,
    (SELECT a.acked_at FROM {schema}.outbox_ack a WHERE a.id = p.id OFFSET 0),
    EXISTS (SELECT FROM {schema}.outbox_rejected r WHERE r.id = p.id OFFSET 0),
    true
FROM {schema}.outbox p
WHERE p.id = ANY ($1::text[]::uuid[])
ORDER BY p.id

-- name: Subscribers
-- The consumers of each topic, the types of events that they have handlers of, and since when.
SELECT c.name, c.group_name, t.topic, t.born_at, CASE WHEN t.begin_at > '-infinity'::timestamptz THEN t.begin_at END,
    extract(epoch FROM c.inbox_retention)::float8, extract(epoch FROM c.position_retention)::float8,
    ARRAY(SELECT h.type FROM {schema}.consumer_handler h WHERE h.consumer = c.name AND h.topic = t.topic ORDER BY h.type),
    ARRAY(SELECT h.registered_at FROM {schema}.consumer_handler h WHERE h.consumer = c.name AND h.topic = t.topic ORDER BY h.type)
FROM {schema}.consumer c JOIN {schema}.consumer_topic t ON t.consumer = c.name
ORDER BY c.name, t.topic
LIMIT $1::bigint

-- name: Judge
-- What consumer $1 has recorded of events of topic $2. (The OFFSETs have rows looked up one by one.)
SELECT k.n::bigint, COALESCE(pos.sequence, -1::bigint), COALESCE(pos.skipped, '{}'::bigint[]),
    EXISTS (SELECT FROM {schema}.inbox i WHERE i.event_id = k.id::uuid AND i.source = k.source AND i.consumer = $1::text OFFSET 0),
    p.reason, p.parked_at
FROM ROWS FROM (
    pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[]), pg_catalog.unnest($5::text[]), pg_catalog.unnest($6::bigint[])
) WITH ORDINALITY AS k (id, source, subject, sequence, n)
LEFT JOIN LATERAL (
    SELECT sequence, skipped FROM {schema}.position
    WHERE k.sequence > 0 AND consumer = $1::text AND source = k.source AND topic = $2::text AND subject = k.subject
    OFFSET 0
) pos ON true
LEFT JOIN LATERAL (
    SELECT reason, parked_at FROM {schema}.parked WHERE consumer = $1::text AND event_id = k.id::uuid AND source = k.source OFFSET 0
) p ON true
ORDER BY k.n
