-- name: Schemas
SELECT n.nspname::text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = 'outbox_sweep'
ORDER BY n.nspname
LIMIT $1::bigint

-- name: Identify
SELECT pg_catalog.current_setting('server_version_num')::integer, current_user::text,
    pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'), pg_catalog.pg_is_in_recovery(), clock_timestamp()

-- name: Owner
SELECT id::text, COALESCE(source, '') FROM {schema}.installation

-- name: Consumers
-- Those with a handler: one whose handlers are all retired is gone.
SELECT c.name, c.group_name, EXTRACT(epoch FROM c.inbox_retention)::float8, h.topics, h.types
FROM {schema}.consumer c
CROSS JOIN LATERAL (
    SELECT pg_catalog.array_agg(topic ORDER BY topic, type) AS topics, pg_catalog.array_agg(type ORDER BY topic, type) AS types
    FROM {schema}.consumer_handler h WHERE h.consumer = c.name
) h
WHERE h.topics IS NOT NULL
ORDER BY c.name
LIMIT $1::bigint

-- name: Now
SELECT clock_timestamp()

-- name: Backend
SELECT pg_catalog.pg_backend_pid()

-- name: HasStatement
SELECT EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE name = $1::text)

-- name: Sessions
-- The client sessions that have an open transaction, in all databases: each of them can hold back the sweep's watermark. Autovacuum
-- doesn't.
SELECT a.pid, COALESCE(a.usename::text, ''), COALESCE(a.application_name, ''), COALESCE(a.datname::text, ''), COALESCE(a.state, ''),
    EXTRACT(epoch FROM clock_timestamp() - a.xact_start)::float8, COALESCE(EXTRACT(epoch FROM clock_timestamp() - a.state_change)::float8, 0::float8)
FROM pg_catalog.pg_stat_activity a
WHERE a.xact_start IS NOT NULL AND a.backend_type = 'client backend' AND a.pid <> pg_catalog.pg_backend_pid()
ORDER BY a.xact_start
LIMIT $1::bigint

-- name: HiddenSessions
SELECT pg_catalog.count(*)
FROM pg_catalog.pg_stat_activity a
WHERE a.datid IS NOT NULL AND a.query = '<insufficient privilege>'

-- name: Durability
SELECT pg_catalog.current_setting('fsync')::boolean, pg_catalog.current_setting('full_page_writes')::boolean

-- name: Standby
-- The state of other roles' replicas is null without pg_read_all_stats.
SELECT pg_catalog.current_setting('synchronous_standby_names'),
    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_replication r WHERE r.sync_state IN ('sync', 'quorum'))

-- name: Connections
-- The limits of role $1: what is limited, the maximum, and how many are used.
SELECT 'server', pg_catalog.current_setting('max_connections')::bigint - pg_catalog.current_setting('superuser_reserved_connections')::bigint,
    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity a WHERE a.datid IS NOT NULL)
FROM pg_catalog.pg_roles r WHERE r.rolname = $1::text
UNION ALL
SELECT 'database', d.datconnlimit::bigint, (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity a WHERE a.datid = d.oid)
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database() AND d.datconnlimit >= 0
UNION ALL
SELECT 'role', r.rolconnlimit::bigint, (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity a WHERE a.usesysid = r.oid)
FROM pg_catalog.pg_roles r WHERE r.rolname = $1::text AND r.rolconnlimit >= 0

-- name: PreparedTransactions
SELECT p.gid, p.owner::text, p.database::text, EXTRACT(epoch FROM clock_timestamp() - p.prepared)::float8
FROM pg_catalog.pg_prepared_xacts p
ORDER BY p.prepared
LIMIT $1::bigint

-- name: MayCreate
SELECT n.oid IS NOT NULL, pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
    COALESCE(pg_catalog.has_schema_privilege(n.oid, 'CREATE'), false)
FROM (SELECT 1) one LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = $1::text

-- name: MissingRights
-- What role $2 lacks in schema $1 with tables $3. Nothing updates the audit, and $5: nothing deletes from it.
SELECT 'USAGE', 'schema ' || n.nspname
FROM pg_catalog.pg_namespace n
WHERE n.nspname = $1::text AND NOT pg_catalog.has_schema_privilege($2::text::name, n.oid, 'USAGE')
UNION ALL
(SELECT p.privilege, c.relname::text
FROM pg_catalog.pg_namespace n
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p') AND c.relname = ANY ($3::text[])
CROSS JOIN pg_catalog.unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS p (privilege)
WHERE n.nspname = $1::text AND NOT pg_catalog.has_table_privilege($2::text::name, c.oid, p.privilege)
  AND NOT (c.relname = 'audit' AND (p.privilege = 'UPDATE' OR p.privilege = 'DELETE' AND $5::boolean))
ORDER BY c.relname, p.privilege
LIMIT $4::bigint)
UNION ALL
SELECT 'SELECT', c.relname::text
FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = 'rocketflow_migration'
WHERE n.nspname = $1::text AND NOT pg_catalog.has_table_privilege($2::text::name, c.oid, 'SELECT')
UNION ALL
(SELECT 'EXECUTE', f.proname || '()'
FROM pg_catalog.pg_namespace n
JOIN pg_catalog.pg_proc f ON f.pronamespace = n.oid AND f.proname IN ('make_partition', 'drop_partition')
WHERE n.nspname = $1::text AND NOT pg_catalog.has_function_privilege($2::text::name, f.oid, 'EXECUTE')
ORDER BY f.proname)

-- name: Autovacuum
SELECT pg_catalog.current_setting('autovacuum')::boolean AND pg_catalog.current_setting('track_counts')::boolean

-- name: WithoutAutovacuum
SELECT c.relname::text
FROM pg_catalog.pg_namespace n
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p')
WHERE n.nspname = $1::text
  AND EXISTS (SELECT FROM pg_catalog.unnest(c.reloptions) AS o (option) WHERE pg_catalog.lower(o.option) IN ('autovacuum_enabled=false', 'autovacuum_enabled=off', 'autovacuum_enabled=0'))
ORDER BY c.relname
LIMIT $2::bigint

-- name: Partitions
SELECT c.relname::text
FROM pg_catalog.pg_namespace n
JOIN pg_catalog.pg_class p ON p.relnamespace = n.oid AND p.relname = ANY ($2::text[])
JOIN pg_catalog.pg_inherits i ON i.inhparent = p.oid
JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
WHERE n.nspname = $1::text

-- name: DefaultPartitions
-- The default partitions that hold a row of a day. Of inbox_default only the first $1 rows are looked at: events of other producers
-- may have any id.
SELECT 'outbox_default' WHERE EXISTS (SELECT FROM {schema}.outbox_default)
UNION ALL
SELECT 'outbox_ack_default' WHERE EXISTS (SELECT FROM {schema}.outbox_ack_default)
UNION ALL
SELECT 'timeout_history_default' WHERE EXISTS (SELECT FROM {schema}.timeout_history_default)
UNION ALL
SELECT 'inbox_default' WHERE EXISTS (
    SELECT FROM (SELECT event_id FROM {schema}.inbox_default LIMIT $1::bigint) i WHERE i.event_id::text LIKE '________-____-7%'
)

-- name: LeaseHeld
SELECT EXISTS (SELECT FROM {schema}.lease WHERE name = $1::text AND expires_at > clock_timestamp())

-- name: FarthestTimeout
-- Seconds until the last of the timeouts that are handed over is due. The last $1 by time are looked at.
SELECT COALESCE(EXTRACT(epoch FROM pg_catalog.max(t.due_at) - clock_timestamp())::float8, 0::float8)
FROM (SELECT due_at, handed_over FROM {schema}.timeout ORDER BY due_at DESC LIMIT $1::bigint) t
WHERE t.handed_over

-- name: PublishedTopics
-- Of ordered events by their streams, of others by the newest events. The recursion finds the few sources and topics with one index
-- lookup each.
WITH RECURSIVE known AS (
    (SELECT source, topic FROM {schema}.stream ORDER BY source, topic LIMIT 1)
    UNION ALL
    SELECT n.source, n.topic FROM known k CROSS JOIN LATERAL (
        SELECT source, topic FROM {schema}.stream s WHERE (s.source, s.topic) > (k.source, k.topic)
        ORDER BY source, topic LIMIT 1
    ) n
)
SELECT topic FROM known
UNION
SELECT topic FROM (SELECT topic FROM {schema}.outbox ORDER BY id DESC LIMIT 1000) newest
ORDER BY topic
LIMIT $1::bigint

-- name: TimeoutTopics
SELECT DISTINCT t.topic FROM (SELECT topic FROM {schema}.timeout ORDER BY due_at LIMIT $1::bigint) t

-- name: Rejected
-- Topics of which the broker rejects all events, and single events that it rejects, with one of the reasons.
SELECT t.topic, true, t.reason, (SELECT pg_catalog.count(*) FROM (SELECT FROM {schema}.outbox_rejected r WHERE r.topic = t.topic LIMIT $2::bigint) e)
FROM {schema}.outbox_rejected_topic t
UNION ALL
SELECT r.topic, false, pg_catalog.min(r.reason), pg_catalog.count(*)
FROM (SELECT topic, reason FROM {schema}.outbox_rejected WHERE next_at < 'infinity' ORDER BY next_at LIMIT $2::bigint) r
WHERE NOT EXISTS (SELECT FROM {schema}.outbox_rejected_topic t WHERE t.topic = r.topic)
GROUP BY r.topic
LIMIT $1::bigint

-- name: RetentionAge
-- Seconds since a process last began to delete what is too old; -1: never.
SELECT CASE WHEN begun_at = '-infinity' THEN -1::float8 ELSE EXTRACT(epoch FROM clock_timestamp() - begun_at)::float8 END
FROM {schema}.outbox_retention

-- name: ClaimedAge
-- Seconds since the first service started on the schema; 0: none has.
SELECT COALESCE(EXTRACT(epoch FROM clock_timestamp() - claimed_at)::float8, 0::float8) FROM {schema}.installation

-- name: IdleSagas
-- Running sagas that have been in one state for more than $1 seconds, without a deadline, and the one that has been there for longest: by
-- name, version and state. Looks at $2 of each, in no order, as no index has the time; all: these are all that there are.
WITH RECURSIVE known AS (
    (SELECT name, version, state FROM {schema}.saga WHERE finished_at IS NULL ORDER BY name, version, state LIMIT 1)
    UNION ALL
    SELECT n.name, n.version, n.state FROM known k CROSS JOIN LATERAL (
        SELECT s.name, s.version, s.state FROM {schema}.saga s
        WHERE s.finished_at IS NULL AND (s.name, s.version, s.state) > (k.name, k.version, k.state)
        ORDER BY s.name, s.version, s.state LIMIT 1
    ) n
)
SELECT k.name, k.version, k.state, i.looked < $2::bigint AS all, i.sagas, COALESCE(i.keys[1], ''), COALESCE(i.age, 0::float8)
FROM known k CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*) AS looked, pg_catalog.count(*) FILTER (WHERE c.idle) AS sagas,
        pg_catalog.array_agg(c.key ORDER BY c.changed_at) FILTER (WHERE c.idle) AS keys,
        EXTRACT(epoch FROM clock_timestamp() - pg_catalog.min(c.changed_at) FILTER (WHERE c.idle))::float8 AS age
    FROM (
        SELECT f.key, f.changed_at, f.changed_at < now() - pg_catalog.make_interval(secs => $1::float8)
            AND NOT EXISTS (SELECT FROM {schema}.timeout t WHERE t.key = k.name || '/' || f.key) AS idle
        FROM (
            SELECT s.key, s.changed_at FROM {schema}.saga s
            WHERE s.finished_at IS NULL AND s.name = k.name AND s.version = k.version AND s.state = k.state
            LIMIT $2::bigint
        ) f
    ) c
) i
WHERE i.sagas > 0 OR i.looked = $2::bigint
LIMIT $3::bigint

-- name: SagaVersions
WITH RECURSIVE known AS (
    (SELECT name, version FROM {schema}.saga WHERE finished_at IS NULL ORDER BY name, version LIMIT 1)
    UNION ALL
    SELECT n.name, n.version FROM known k CROSS JOIN LATERAL (
        SELECT s.name, s.version FROM {schema}.saga s
        WHERE s.finished_at IS NULL AND (s.name, s.version) > (k.name, k.version)
        ORDER BY s.name, s.version LIMIT 1
    ) n
)
SELECT name, version FROM known LIMIT $1::bigint

-- name: Unhandled
-- The events that wait for a handler, by consumer, topic and type, of the first $1 of each consumer.
SELECT c.name, w.topic, w.type, pg_catalog.count(*), EXTRACT(epoch FROM clock_timestamp() - pg_catalog.min(w.parked_at))::float8
FROM {schema}.consumer c
CROSS JOIN LATERAL (
    SELECT topic, type, parked_at FROM {schema}.parked WHERE consumer = c.name AND reason = 'unhandled' ORDER BY topic, type LIMIT $1::bigint
) w
GROUP BY c.name, w.topic, w.type
ORDER BY c.name, w.topic, w.type
LIMIT $2::bigint

-- name: Paused
-- What operators have paused. Counts at most $1 parked events of each.
SELECT p.consumer, p.kind, p.topic, p.type, p.subject, EXTRACT(epoch FROM clock_timestamp() - p.paused_at)::float8, p.actor, p.reason,
    (SELECT pg_catalog.count(*) FROM (
        SELECT FROM {schema}.parked e
        WHERE e.consumer = p.consumer AND e.reason = 'paused' AND e.topic = p.topic
          AND (p.kind = 'handler' AND e.type = p.type OR p.kind = 'stream' AND e.subject = p.subject)
        LIMIT $1::bigint
    ) held)
FROM {schema}.pause p
ORDER BY p.consumer, p.kind, p.topic, p.type, p.subject
LIMIT $2::bigint

-- name: FailedWaiting
-- The failed and expired events of sagas, of the oldest $1.
SELECT w.saga, w.status, pg_catalog.count(*), pg_catalog.min(w.key)
FROM (SELECT saga, status, key FROM {schema}.saga_waiting WHERE status IN ('failed', 'expired') ORDER BY changed_at LIMIT $1::bigint) w
GROUP BY w.saga, w.status
ORDER BY w.saga, w.status
LIMIT $2::bigint
