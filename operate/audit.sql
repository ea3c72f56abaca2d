-- name: RecordAudit
INSERT INTO {schema}.audit (operation, actor, role, action, denied, reason, filter, changed, ids, names, before, after)
VALUES ($1::text::uuid, COALESCE(NULLIF($2::text, ''), SESSION_USER::text), SESSION_USER::text, $3::text, $4::boolean, $5::text, $6::text::json,
    $7::bigint, $8::text[], $11::text[], $9::text::json, $10::text::json)
RETURNING id, at, actor, role

-- name: DeniedBefore
-- How many attempts of an actor were refused in the last hour, at most $4, and whether one of the last minute was the same.
SELECT pg_catalog.count(*), COALESCE(pg_catalog.bool_or(d.action = $2::text AND d.filter::text = $3::text AND d.at > clock_timestamp() - interval '1 minute'), false)
FROM (
    SELECT action, filter, at FROM {schema}.audit
    WHERE denied AND actor = COALESCE(NULLIF($1::text, ''), SESSION_USER::text) AND at > clock_timestamp() - interval '1 hour'
      AND at <= clock_timestamp() -- not those from before the clock was set back
    ORDER BY at DESC
    LIMIT $4::bigint
) d

-- name: Audit
-- Empty text and null mean any; $7 0: from the newest.
SELECT id, operation, at, actor, role, action, denied, reason, filter::text, changed, ids, before::text, after::text
FROM {schema}.audit
WHERE ($1::text = '' OR actor = $1::text) AND ($2::text = '' OR action = $2::text) AND $3::text = ''
  AND ($4::text IS NULL OR operation = $4::text::uuid) AND ($5::timestamptz IS NULL OR at >= $5::timestamptz)
  AND ($6::timestamptz IS NULL OR at < $6::timestamptz) AND ($7::bigint = 0 OR id < $7::bigint) AND (NOT $8::boolean OR denied)
ORDER BY id DESC
LIMIT $9::bigint

-- name: AuditOf
-- The same for the entries that name $3. They are materialized so that they are found by the index on names: Postgres would rather read
-- the table from its newest entry to find the first $9, and read all of it for an id that few entries name.
WITH named AS MATERIALIZED (
    SELECT * FROM {schema}.audit WHERE names OPERATOR(pg_catalog.@>) ARRAY[$3::text]
)
SELECT id, operation, at, actor, role, action, denied, reason, filter::text, changed, ids, before::text, after::text
FROM named
WHERE ($1::text = '' OR actor = $1::text) AND ($2::text = '' OR action = $2::text)
  AND ($4::text IS NULL OR operation = $4::text::uuid) AND ($5::timestamptz IS NULL OR at >= $5::timestamptz)
  AND ($6::timestamptz IS NULL OR at < $6::timestamptz) AND ($7::bigint = 0 OR id < $7::bigint) AND (NOT $8::boolean OR denied)
ORDER BY id DESC
LIMIT $9::bigint

-- name: AuditOfAny
-- The newest changes that name any of $1, and what of $1 each names. (Materialized as in AuditOf.)
WITH named AS MATERIALIZED (
    SELECT id, at, actor, action, reason, filter, changed, names, before, after FROM {schema}.audit
    WHERE names OPERATOR(pg_catalog.&&) $1::text[] AND NOT denied
)
SELECT id, at, actor, action, reason, filter::text, changed, before::text, after::text,
    ARRAY(SELECT n.name FROM pg_catalog.unnest(names) AS n (name) WHERE n.name = ANY ($1::text[]))
FROM named
ORDER BY id DESC
LIMIT $2::bigint
