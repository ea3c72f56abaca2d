-- name: SagaPage
-- The next page of sagas after ($1, $2) that match, by name and key. At most $7 rows are looked at; the last columns say how many were, and
-- which came last. Empty text means any.
WITH scanned AS MATERIALIZED (
    SELECT name, key, version, state, revision, started_at, changed_at, finished_at
    FROM {schema}.saga
    WHERE (name, key) > ($1::text, $2::text) AND ($3::text = '' OR name <= $3::text)
    ORDER BY name, key
    LIMIT $7::bigint
), found AS (
    SELECT * FROM scanned
    WHERE ($3::text = '' OR name = $3::text) AND ($4::text = '' OR state = $4::text) AND ($5::boolean IS NULL OR (finished_at IS NOT NULL) = $5::boolean)
    ORDER BY name, key
    LIMIT $6::bigint
)
SELECT f.name, f.key, f.version, f.state, f.revision, f.started_at, f.changed_at, f.finished_at,
    (SELECT pg_catalog.count(*) FROM scanned), last.name, last.key
FROM (SELECT 1) one LEFT JOIN found f ON true LEFT JOIN (SELECT name, key FROM scanned s ORDER BY s.name DESC, s.key DESC LIMIT 1) last ON true
ORDER BY f.name, f.key

-- name: SagaTransitions
-- The kinds of transitions among the last $2 by key of sagas $1.
SELECT from_state, to_state, cause_type, pg_catalog.count(*)
FROM (
    SELECT from_state, to_state, cause_type FROM {schema}.saga_history WHERE name = $1::text ORDER BY key DESC, revision DESC LIMIT $2::bigint
) h
GROUP BY from_state, to_state, cause_type
ORDER BY from_state, to_state, cause_type
LIMIT $3::bigint

-- name: EventsOut
-- The events that handlers of this service published while they handled one of the events $1: at most $2 of each, and $3 altogether.
SELECT e.id::text, e.recorded_at, e.cause::text, e.consumer, e.type, e.topic, e.subject
FROM (SELECT DISTINCT id::uuid AS id FROM pg_catalog.unnest($1::text[]) AS c (id)) c CROSS JOIN LATERAL (
    SELECT id, recorded_at, cause, COALESCE(cause_consumer, '') AS consumer, type, topic, subject FROM {schema}.outbox WHERE cause = c.id LIMIT $2::bigint
) e
ORDER BY e.id
LIMIT $3::bigint

-- name: TimeoutPage
-- The next page of armed timeouts after ($1, $2, $3), the next due first; with $4 only those that are late.
SELECT key, name, epoch, due_at, armed_at, handed_over, sends, stuck_at, topic, type, subject
FROM {schema}.timeout
WHERE (due_at, key, name) > ($1::timestamptz, $2::text, $3::text) AND (NOT $4::boolean OR due_at <= now())
ORDER BY due_at, key, name
LIMIT $5::bigint
