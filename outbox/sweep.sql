-- name: ReadSweepState
-- The sweep's state, and whether this server can write, in one round trip. Rows of a transaction that is older than xmax and
-- not in progress are visible now, or never will be. State that is ahead of all transactions was restored from a dump of
-- another cluster and is ignored.
WITH now AS MATERIALIZED (SELECT pg_catalog.pg_current_snapshot() AS s)
SELECT NOT pg_catalog.pg_is_in_recovery() AND pg_catalog.current_setting('transaction_read_only') <> 'on',
    pg_catalog.pg_snapshot_xmax(s)::text::bigint, ARRAY(SELECT pg_catalog.pg_snapshot_xip(s)::text::bigint),
    CASE WHEN foreign_to THEN 0 ELSE seen::text::bigint END,
    CASE WHEN foreign_to THEN '{}' ELSE again::text[]::bigint[] END,
    CASE WHEN foreign_to THEN 0 ELSE owed END,
    COALESCE(EXTRACT(epoch FROM clock_timestamp() - oldest_at), 0)::float8,
    CASE WHEN foreign_to THEN 0 ELSE pg_catalog.pg_snapshot_xmax(counted)::text::bigint END,
    ARRAY(SELECT pg_catalog.pg_snapshot_xip(counted)::text::bigint),
    foreign_to OR recount_at <= clock_timestamp(),
    EXISTS (SELECT FROM {schema}.outbox_rejected), rejected::text
FROM now, {schema}.outbox_sweep,
    LATERAL (SELECT GREATEST(mark, seen, pg_catalog.pg_snapshot_xmax(counted)) > pg_catalog.pg_snapshot_xmax(s) AS foreign_to) f

-- name: OwedPage
-- The next page after ($3, $4) of events that are neither acknowledged nor rejected, among the transactions from $1 on and
-- those of $2. Each part uses the index on (xid, id) from where the page before ended, so a transaction of millions of rows is
-- read once. Bodies are not read, only their sizes. (The bounds are subqueries so that the plan doesn't depend on their
-- values: before the table's first ANALYZE Postgres might choose to read all rows. So it does for xid = x after an import, when statistics say
-- that each transaction has many events: here and below a transaction is a range. The OFFSETs make it look up acks row by row: a join might
-- read all of them.)
SELECT o.xid::text::bigint, EXTRACT(epoch FROM clock_timestamp() - o.recorded_at)::float8, o.id::text, o.source, o.topic, o.subject,
    o.sequence, o.recorded_at, pg_catalog.octet_length(o.body)
FROM (
    (SELECT o.* FROM pg_catalog.unnest($2::bigint[]) AS x (xid) CROSS JOIN LATERAL (
        SELECT * FROM {schema}.outbox o
        WHERE o.xid BETWEEN x.xid::text::xid8 AND x.xid::text::xid8
          AND o.id > CASE WHEN x.xid > $3::bigint THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE $4::text::uuid END
          AND NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = o.id OFFSET 0)
          AND NOT EXISTS (SELECT FROM {schema}.outbox_rejected r WHERE r.id = o.id OFFSET 0)
        ORDER BY o.xid, o.id
        LIMIT $5::bigint) o
    WHERE x.xid >= $3::bigint
    ORDER BY o.xid, o.id
    LIMIT $5::bigint)
    UNION ALL
    (SELECT * FROM {schema}.outbox o
    WHERE (o.xid, o.id) > (
            (SELECT GREATEST($1::bigint, $3::bigint)::text::xid8),
            (SELECT CASE WHEN $1::bigint > $3::bigint THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE $4::text::uuid END))
        AND o.xid >= (SELECT GREATEST($1::bigint, $3::bigint)::text::xid8)
        AND NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = o.id OFFSET 0)
        AND NOT EXISTS (SELECT FROM {schema}.outbox_rejected r WHERE r.id = o.id OFFSET 0)
    ORDER BY o.xid, o.id
    LIMIT $5::bigint)
) o
ORDER BY o.xid, o.id
LIMIT $5::bigint

-- name: LoadOwed
-- The events of $1 that have no ack yet: a check-back may have committed their half messages meanwhile.
SELECT o.id, o.source, o.topic, o.type, o.subject, o.sequence, o.previous, o.recorded_at, o.content_type, o.headers, o.body
FROM {schema}.outbox o
WHERE o.id = ANY ($1::text[]::uuid[]) AND NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = o.id OFFSET 0)

-- name: Ack
-- Doesn't wait for the disk: an ack that a crash undoes costs a duplicate, which consumers absorb, and each wait would delay
-- the transactions that must wait.
WITH no_wait AS MATERIALIZED (SELECT pg_catalog.set_config('synchronous_commit', 'off', true))
INSERT INTO {schema}.outbox_ack (id, path)
SELECT e.id, e.path FROM no_wait, ROWS FROM (pg_catalog.unnest($1::text[]::uuid[]), pg_catalog.unnest($2::smallint[])) AS e (id, path)
ON CONFLICT DO NOTHING

-- name: CountOwed
-- How many events have no ack and are not rejected, among the transactions from $1 on and those of $2, up to $3.
SELECT pg_catalog.count(*) FROM (
    (SELECT FROM pg_catalog.unnest($2::bigint[]) AS x (xid) CROSS JOIN LATERAL (
        SELECT FROM {schema}.outbox o
        WHERE o.xid BETWEEN x.xid::text::xid8 AND x.xid::text::xid8
            AND NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = o.id OFFSET 0)
            AND NOT EXISTS (SELECT FROM {schema}.outbox_rejected r WHERE r.id = o.id OFFSET 0)
        ORDER BY o.xid LIMIT $3::bigint) o
    LIMIT $3::bigint)
    UNION ALL
    (SELECT FROM {schema}.outbox o
    WHERE o.xid >= $1::bigint::text::xid8
        AND NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = o.id OFFSET 0)
        AND NOT EXISTS (SELECT FROM {schema}.outbox_rejected r WHERE r.id = o.id OFFSET 0)
    LIMIT $3::bigint)
) o

-- name: OldestOwed
-- The age of the oldest owed event, and how many are owed: those that are not rejected and those that are, up to $3 each.
SELECT COALESCE(pg_catalog.max(EXTRACT(epoch FROM clock_timestamp() - recorded_at)), 0)::float8,
    pg_catalog.count(*) FILTER (WHERE NOT rejected), pg_catalog.count(*) FILTER (WHERE rejected)
FROM (
    (SELECT o.recorded_at, false AS rejected FROM pg_catalog.unnest($2::bigint[]) AS x (xid) CROSS JOIN LATERAL (
        SELECT recorded_at, xid FROM {schema}.outbox o
        WHERE o.xid BETWEEN x.xid::text::xid8 AND x.xid::text::xid8
            AND NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = o.id OFFSET 0)
            AND NOT EXISTS (SELECT FROM {schema}.outbox_rejected r WHERE r.id = o.id OFFSET 0)
        ORDER BY o.xid LIMIT $3::bigint) o
    ORDER BY o.xid LIMIT $3::bigint)
    UNION ALL
    (SELECT recorded_at, false FROM {schema}.outbox o
    WHERE o.xid >= $1::bigint::text::xid8
        AND NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = o.id OFFSET 0)
        AND NOT EXISTS (SELECT FROM {schema}.outbox_rejected r WHERE r.id = o.id OFFSET 0)
    ORDER BY o.xid LIMIT $3::bigint)
    UNION ALL
    (SELECT (SELECT o.recorded_at FROM {schema}.outbox o WHERE o.id = r.id OFFSET 0), true FROM {schema}.outbox_rejected r
    WHERE NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = r.id OFFSET 0)
    ORDER BY r.id LIMIT $3::bigint)
) o

-- name: WriteCount
-- An estimate for other processes, so it needn't wait for the disk.
WITH no_wait AS MATERIALIZED (SELECT pg_catalog.set_config('synchronous_commit', 'off', true))
UPDATE {schema}.outbox_sweep
SET owed = $1::bigint,
    oldest_at = CASE WHEN $1::bigint > 0 THEN clock_timestamp() - pg_catalog.make_interval(secs => $2::float8) END,
    counted = $3::text::pg_snapshot,
    recount_at = CASE WHEN $4::float8 > 0::float8 THEN clock_timestamp() + pg_catalog.make_interval(secs => $4::float8) ELSE recount_at END
FROM no_wait

-- name: WriteProgress
-- Written by the holder of the lease alone. It waits for the disk whatever the default is, and the acks that were seen were
-- written before it: so no crash undoes an ack that the progress relies on. Nothing is written while no row comes.
WITH wait AS MATERIALIZED (
    SELECT CASE pg_catalog.current_setting('synchronous_commit') WHEN 'off' THEN pg_catalog.set_config('synchronous_commit', 'local', true) END
)
UPDATE {schema}.outbox_sweep
SET mark = $3::bigint::text::xid8, seen = $1::bigint::text::xid8, again = $2::bigint[]::text[]::xid8[], swept_at = clock_timestamp()
FROM wait
WHERE ($4::boolean OR (SELECT o.xid FROM {schema}.outbox o ORDER BY o.xid DESC, o.id DESC LIMIT 1) >= seen)
  AND EXISTS (SELECT FROM {schema}.lease l WHERE l.name = $5::text AND l.holder = $6::text::uuid)

-- name: Check
-- The rows of the events of half messages, and whether they are acknowledged. (The OFFSETs make Postgres look up rows one by
-- one: a join might read all of them.)
SELECT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = c.id OFFSET 0),
    o.topic IS NOT NULL, COALESCE(o.topic, ''), COALESCE(o.type, ''),
    pg_catalog.pg_is_in_recovery(), clock_timestamp()
FROM pg_catalog.unnest($1::text[]::uuid[]) WITH ORDINALITY AS c (id, n)
LEFT JOIN LATERAL (SELECT o.topic, o.type FROM {schema}.outbox o WHERE o.id = c.id OFFSET 0) o ON true
ORDER BY c.n
