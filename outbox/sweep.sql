-- name: Look
-- What the sweep knows, with the lock of a process that wants to sweep ($2), in one round trip. Whatever a transaction did
-- that is older than xmax and not in progress is visible by now, or never will be. What is ahead of all transactions
-- comes from another cluster, by way of a dump, and is worth nothing.
WITH now AS MATERIALIZED (SELECT pg_current_snapshot() AS s)
SELECT CASE WHEN $2::boolean THEN pg_try_advisory_lock(hashtextextended($1, 0)) ELSE false END,
    pg_snapshot_xmax(s)::text::bigint, ARRAY(SELECT pg_snapshot_xip(s)::text::bigint),
    CASE WHEN foreign_to THEN 0 ELSE seen::text::bigint END,
    CASE WHEN foreign_to THEN '{}' ELSE again::text[]::bigint[] END,
    CASE WHEN foreign_to THEN 0 ELSE owed END,
    coalesce(extract(epoch FROM clock_timestamp() - oldest_at), 0)::float8,
    CASE WHEN foreign_to THEN 0 ELSE pg_snapshot_xmax(counted)::text::bigint END,
    ARRAY(SELECT pg_snapshot_xip(counted)::text::bigint),
    foreign_to OR recount_at <= clock_timestamp()
FROM now, {schema}.outbox_sweep, LATERAL (SELECT greatest(mark, seen, pg_snapshot_xmax(counted)) > pg_snapshot_xmax(s) AS foreign_to) f

-- name: Owed
-- The next page after ($3, $4) of what has no ack, among the transactions from $1 on and those of $2. Bodies are read of
-- what is due only. (The OFFSET has acks looked up row by row: a join might read all of them.)
SELECT o.xid::text::bigint, due, extract(epoch FROM clock_timestamp() - o.recorded_at)::float8,
    o.id, o.source, o.topic, o.type, o.subject, o.sequence, o.previous, o.recorded_at, o.content_type,
    CASE WHEN due THEN o.headers END, CASE WHEN due THEN o.body ELSE '' END
FROM (
    (SELECT * FROM {schema}.outbox o
    WHERE o.xid = ANY ($2::bigint[]::text[]::xid8[]) AND o.xid >= $3::bigint::text::xid8 AND (o.xid > $3::bigint::text::xid8 OR o.id > $4)
        AND NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = o.id OFFSET 0)
    ORDER BY o.xid, o.id
    LIMIT $5)
    UNION ALL
    (SELECT * FROM {schema}.outbox o
    WHERE o.xid >= greatest($1::bigint, $3::bigint)::text::xid8 AND (o.xid > $3::bigint::text::xid8 OR o.id > $4)
        AND NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = o.id OFFSET 0)
    ORDER BY o.xid, o.id
    LIMIT $5)
) o, LATERAL (SELECT o.recorded_at < clock_timestamp() - $6::interval OR o.id = ANY ($7::uuid[]) AS due) d
ORDER BY o.xid, o.id
LIMIT $5

-- name: Unacked
SELECT id FROM unnest($1::uuid[]) AS id WHERE NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = id.id OFFSET 0)

-- name: CountOwed
-- How much has no ack, among the transactions from $1 on and those of $2, up to $3.
SELECT count(*) FROM (
    (SELECT FROM {schema}.outbox o
    WHERE o.xid = ANY ($2::bigint[]::text[]::xid8[]) AND NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = o.id OFFSET 0)
    LIMIT $3)
    UNION ALL
    (SELECT FROM {schema}.outbox o
    WHERE o.xid >= $1::bigint::text::xid8 AND NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = o.id OFFSET 0)
    LIMIT $3)
) o

-- name: OldestOwed
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - recorded_at)), 0)::float8, count(*) FROM (
    (SELECT recorded_at FROM {schema}.outbox o
    WHERE o.xid = ANY ($2::bigint[]::text[]::xid8[]) AND NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = o.id OFFSET 0)
    ORDER BY o.xid LIMIT $3)
    UNION ALL
    (SELECT recorded_at FROM {schema}.outbox o
    WHERE o.xid >= $1::bigint::text::xid8 AND NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = o.id OFFSET 0)
    ORDER BY o.xid LIMIT $3)
) o

-- name: Counted
-- A hint for other processes: it needn't wait for the disk.
WITH unhurried AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
UPDATE {schema}.outbox_sweep
SET owed = $1::bigint, oldest_at = CASE WHEN $1::bigint > 0 THEN clock_timestamp() - $2::interval END,
    counted = $3::text::pg_snapshot, recount_at = CASE WHEN $4::interval > '0s' THEN clock_timestamp() + $4::interval ELSE recount_at END
FROM unhurried

-- name: Seen
-- Waits for the disk whatever the default is, and the acks that were seen, written before, are there then: no crash takes
-- back an ack that this counts on. Nothing is written while no row comes.
WITH hurried AS MATERIALIZED (
    SELECT CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'local', true) END
)
UPDATE {schema}.outbox_sweep
SET mark = $3::bigint::text::xid8, seen = $1::bigint::text::xid8, again = $2::bigint[]::text[]::xid8[], swept_at = clock_timestamp()
FROM hurried
WHERE $4::boolean OR EXISTS (SELECT FROM {schema}.outbox o WHERE o.xid >= seen)
