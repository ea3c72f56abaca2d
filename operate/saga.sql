-- name: Sagas
SELECT name, key, version, state, data, revision, started_at, changed_at, finished_at
FROM {schema}.saga WHERE key = $1::text AND ($2::text = '' OR name = $2::text)
ORDER BY started_at, name

-- name: SagaHistory
SELECT h.name, h.revision, h.from_state, h.to_state, h.cause_type, h.cause_id, h.changed_at
FROM {schema}.saga s JOIN {schema}.saga_history h USING (name, key)
WHERE s.key = $1::text AND ($2::text = '' OR s.name = $2::text)
ORDER BY h.name, h.revision
