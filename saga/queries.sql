-- A key that another transaction is beginning just now is waited for.
-- name: Begin
WITH begun AS (
    INSERT INTO {schema}.saga (name, key, version, state, data, revision, finished_at)
    VALUES ($1, $2, $3, $4, $5, 1, CASE WHEN $6 THEN clock_timestamp() END)
    ON CONFLICT (name, key) DO NOTHING
    RETURNING name, key, revision, state, started_at
)
INSERT INTO {schema}.saga_history (name, key, revision, from_state, to_state, cause_type, changed_at)
SELECT name, key, revision, '', state, $7, started_at FROM begun

-- name: Get
SELECT version, state, data, revision, started_at, changed_at, finished_at
FROM {schema}.saga WHERE name = $1 AND key = $2

-- name: Lock
SELECT version, state, data, revision, started_at, changed_at, finished_at
FROM {schema}.saga WHERE name = $1 AND key = $2
FOR UPDATE

-- The row is locked; another revision means that the transition's own function changed the saga.
-- name: Change
WITH changed AS (
    UPDATE {schema}.saga SET
        state = $4, data = $5, revision = revision + 1, changed_at = clock_timestamp(),
        finished_at = CASE WHEN $6 THEN clock_timestamp() END
    WHERE name = $1 AND key = $2 AND revision = $3
    RETURNING name, key, revision, state, changed_at
)
INSERT INTO {schema}.saga_history (name, key, revision, from_state, to_state, cause_type, cause_id, changed_at)
SELECT name, key, revision, $7, state, $8, $9, changed_at FROM changed
RETURNING changed_at

-- name: ByKey
SELECT name, key, version, state, data, revision, started_at, changed_at, finished_at
FROM {schema}.saga WHERE key = $1
ORDER BY started_at, name

-- name: HistoryByKey
SELECT h.name, h.revision, h.from_state, h.to_state, h.cause_type, h.cause_id, h.changed_at
FROM {schema}.saga s JOIN {schema}.saga_history h USING (name, key)
WHERE s.key = $1
ORDER BY h.name, h.revision

-- name: Expire
WITH old AS (
    SELECT name, key FROM {schema}.saga
    WHERE finished_at < now() - $1::interval
    ORDER BY finished_at LIMIT $2
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {schema}.saga s USING old WHERE s.name = old.name AND s.key = old.key
    RETURNING s.name, s.key
), history AS (
    DELETE FROM {schema}.saga_history h USING gone WHERE h.name = gone.name AND h.key = gone.key
)
SELECT count(*) FROM gone
