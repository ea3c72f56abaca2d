-- name: WaitingPage
-- The next page of events that wait for sagas, without their bodies. With $1 those that failed or expired, the longest so first, after
-- ($5, $6); otherwise all, in the order in which they came, after id $6, those of key $3 by its index. Empty text means any. At most $8
-- rows are looked at; the last columns of each row, and the row without an event that comes last, say how far that went. A branch of the
-- union that isn't wanted reads nothing.
WITH scanned AS MATERIALIZED (
    (SELECT id, changed_at AS at, saga, status FROM {schema}.saga_waiting
    WHERE $1::boolean AND $3::text = '' AND status IN ('failed', 'expired')
      AND changed_at >= COALESCE($5::timestamptz, '-infinity'::timestamptz) AND (changed_at, id) > (COALESCE($5::timestamptz, '-infinity'::timestamptz), $6::bigint)
    ORDER BY changed_at, id LIMIT $8::bigint)
    UNION ALL
    (SELECT id, 'epoch'::timestamptz, saga, status FROM {schema}.saga_waiting
    WHERE NOT $1::boolean AND $3::text = '' AND id > $6::bigint
    ORDER BY id LIMIT $8::bigint)
    UNION ALL
    (SELECT id, 'epoch'::timestamptz, saga, status FROM (
        SELECT id, saga, status FROM {schema}.saga_waiting WHERE key = $3::text OFFSET 0
    ) of_key
    WHERE $3::text <> '' AND id > $6::bigint AND (NOT $1::boolean OR status IN ('failed', 'expired'))
    ORDER BY id LIMIT $8::bigint)
), found AS (
    SELECT id, at FROM scanned
    WHERE ($2::text = '' OR saga = $2::text) AND ($4::text = '' OR status = $4::text)
    ORDER BY at, id
    LIMIT $7::bigint
)
SELECT f.at, w.id, w.saga, w.key, w.status, w.begun, w.state, w.attempts, CASE WHEN w.next_at < 'infinity'::timestamptz THEN w.next_at END, w.expires_at,
    w.last_error, w.arrived_at, w.changed_at, w.event_id::text, w.source, w.topic, w.type, w.subject, pg_catalog.octet_length(w.body),
    (SELECT pg_catalog.count(*) FROM scanned), r.at, r.id
FROM (SELECT 1) one LEFT JOIN (SELECT at, id FROM scanned s ORDER BY s.at DESC, s.id DESC LIMIT 1) r ON true LEFT JOIN found f ON true
LEFT JOIN LATERAL (SELECT * FROM {schema}.saga_waiting WHERE id = f.id OFFSET 0) w ON true
ORDER BY f.at, f.id
