-- name: Acquire
-- Takes the lease if it is free, expired or the caller's own. While another holds it nothing is written, and no transaction
-- id is used, as waiting processes run this every second. The same goes for the holder while more than half of the time is
-- left. A lease that expires later than twice the time from now was written before the clock was set back, and is free.
WITH held AS MATERIALIZED (
    SELECT l.holder, l.expires_at FROM {schema}.lease l
    WHERE l.name = $1::text AND l.expires_at > clock_timestamp()
      AND l.expires_at <= clock_timestamp() + pg_catalog.make_interval(secs => 2::float8 * $3::float8)
), taken AS (
    INSERT INTO {schema}.lease AS l (name, holder, expires_at)
    SELECT $1::text, $2::text::uuid, clock_timestamp() + pg_catalog.make_interval(secs => $3::float8)
    WHERE NOT EXISTS (
        SELECT FROM held
        WHERE held.holder <> $2::text::uuid OR held.expires_at > clock_timestamp() + pg_catalog.make_interval(secs => $3::float8 / 2::float8)
    )
    ON CONFLICT (name) DO UPDATE
    SET holder = excluded.holder, expires_at = clock_timestamp() + pg_catalog.make_interval(secs => $3::float8)
    WHERE l.holder = excluded.holder OR l.expires_at <= clock_timestamp()
       OR l.expires_at > clock_timestamp() + pg_catalog.make_interval(secs => 2::float8 * $3::float8)
    RETURNING l.holder
)
SELECT EXISTS (SELECT FROM taken) OR EXISTS (SELECT FROM held WHERE held.holder = $2::text::uuid)

-- name: Release
DELETE FROM {schema}.lease WHERE name = $1::text AND holder = $2::text::uuid
