-- name: Sagas
SELECT name, key, version, state, data, revision, started_at, changed_at, finished_at
FROM {schema}.saga WHERE key = $1::text AND ($2::text = '' OR name = $2::text)
ORDER BY started_at, name

-- name: SagaHistory
SELECT h.name, h.revision, h.from_state, h.to_state, h.cause_type, h.cause_id, h.changed_at
FROM {schema}.saga s JOIN {schema}.saga_history h USING (name, key)
WHERE s.key = $1::text AND ($2::text = '' OR s.name = $2::text)
ORDER BY h.name, h.revision

-- name: ApplyToSaga
-- The event waits for its saga and is due: the engine applies it as one that came early. The saga's row comes first, as for the engine.
WITH target AS (
    SELECT name, key, state FROM {schema}.saga WHERE name = $1::text AND key = $2::text AND finished_at IS NULL
    FOR UPDATE
), marked AS (
    UPDATE {schema}.saga s SET waiting = true FROM target t WHERE s.name = t.name AND s.key = t.key
)
INSERT INTO {schema}.saga_waiting (saga, key, begun, state, next_at, expires_at,
    event_id, source, topic, type, subject, sequence, previous, recorded_at, database, content_type, headers, body)
SELECT t.name, t.key, true, t.state, clock_timestamp(), clock_timestamp() + pg_catalog.make_interval(secs => $3::float8),
    $4::text::uuid, COALESCE(i.source, ''), $5::text, $6::text, $7::text, 0, 0, clock_timestamp(), i.id::text, $8::text, $9::text::jsonb, $10::bytea
FROM target t CROSS JOIN {schema}.installation i
RETURNING id, state
