-- name: Pausable
-- Whether a consumer exists, reads a topic, and has registered a handler; and how many pauses it has.
SELECT EXISTS (SELECT FROM {schema}.consumer WHERE name = $1::text),
    EXISTS (SELECT FROM {schema}.consumer_topic WHERE consumer = $1::text AND topic = $2::text),
    EXISTS (SELECT FROM {schema}.consumer_handler WHERE consumer = $1::text AND topic = $2::text AND type = $3::text),
    (SELECT pg_catalog.count(*) FROM {schema}.pause WHERE consumer = $1::text)

-- name: Pause
INSERT INTO {schema}.pause (consumer, kind, topic, type, subject, actor, reason)
VALUES ($1::text, $2::text, $3::text, $4::text, $5::text, COALESCE(NULLIF($6::text, ''), SESSION_USER::text), $7::text)
ON CONFLICT DO NOTHING

-- name: Resume
DELETE FROM {schema}.pause
WHERE consumer = $1::text AND kind = $2::text AND topic = $3::text AND type = $4::text AND subject = $5::text
RETURNING paused_at, actor, reason

-- name: Paused
-- With the number of parked events, at most $3 of each. Empty text means any.
SELECT p.consumer, p.kind, p.topic, p.type, p.subject, p.paused_at, p.actor, p.reason, (
    SELECT pg_catalog.count(*) FROM (
        SELECT FROM {schema}.parked e
        WHERE e.consumer = p.consumer AND e.reason = 'paused' AND e.topic = p.topic
          AND (p.kind = 'handler' AND e.type = p.type OR p.kind = 'stream' AND e.subject = p.subject)
        LIMIT $3::bigint
    ) held)
FROM {schema}.pause p
WHERE $1::text = '' OR p.consumer = $1::text
ORDER BY p.consumer, p.kind, p.topic, p.type, p.subject
LIMIT $2::bigint
