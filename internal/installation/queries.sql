-- name: Read
SELECT id::text, COALESCE(source, '') FROM {schema}.installation

-- name: Claim
-- Of two first starts one waits here for the other, and then finds that the schema is claimed.
UPDATE {schema}.installation SET source = $1::text, claimed_at = clock_timestamp() WHERE source IS NULL

-- name: Give
UPDATE {schema}.installation SET source = $1::text, claimed_at = clock_timestamp()
