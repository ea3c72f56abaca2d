-- name: Sagas
SELECT name, key, version, state, data, revision, started_at, changed_at, finished_at
FROM {schema}.saga WHERE key = $1::text AND ($2::text = '' OR name = $2::text)
ORDER BY started_at, name
LIMIT $3::bigint

-- name: SagaHistory
-- The newest $4 transitions of each saga.
SELECT s.name, h.revision, h.from_state, h.to_state, h.cause_type, h.cause_id, h.changed_at
FROM (SELECT name, key FROM {schema}.saga WHERE key = $1::text AND ($2::text = '' OR name = $2::text) ORDER BY started_at, name LIMIT $3::bigint) s
CROSS JOIN LATERAL (
    SELECT revision, from_state, to_state, cause_type, cause_id, changed_at FROM {schema}.saga_history
    WHERE name = s.name AND key = s.key
    ORDER BY revision DESC LIMIT $4::bigint
) h
ORDER BY s.name, h.revision

-- name: LockSaga
SELECT state, revision FROM {schema}.saga WHERE name = $1::text AND key = $2::text AND finished_at IS NULL
FOR UPDATE

-- name: AppliedBefore
-- Whether an event was applied to a saga before. (Materialized as in AuditOf.)
WITH named AS MATERIALIZED (
    SELECT action FROM {schema}.audit WHERE names OPERATOR(pg_catalog.@>) ARRAY[$1::text] AND NOT denied
)
SELECT EXISTS (SELECT FROM named WHERE action = $2::text)

-- name: ApplyToSaga
-- The event waits for its saga, which is locked, and is due: the engine applies it as one that came early.
WITH marked AS (
    UPDATE {schema}.saga SET waiting = true WHERE name = $1::text AND key = $2::text
)
INSERT INTO {schema}.saga_waiting (saga, key, begun, state, next_at, expires_at,
    event_id, source, topic, type, subject, sequence, previous, recorded_at, database, content_type, headers, body)
SELECT $1::text, $2::text, true, $3::text, clock_timestamp(), clock_timestamp() + pg_catalog.make_interval(secs => $4::float8),
    $5::text::uuid, COALESCE(i.source, ''), $6::text, $7::text, $8::text, 0, 0, clock_timestamp(), i.id::text, $9::text, $10::text::jsonb, $11::bytea
FROM {schema}.installation i
RETURNING id
