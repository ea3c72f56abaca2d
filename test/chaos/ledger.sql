-- name: Tables
-- The published events, written in the publishing transaction: those that have to be handled, also if the outcome of the
-- commit is unknown. place is the event's position in its stream, from a counter whose row is locked until commit.
CREATE TABLE published (event text, schedule bigint, topic text, stream text, place bigint, ordinal bigserial);
CREATE INDEX ON published (schedule);
CREATE TABLE counter (stream text PRIMARY KEY, n bigint);
-- What was handled, written in the handler's transaction.
CREATE TABLE handled (consumer text, event text, schedule bigint, stream text, sequence bigint, ordinal bigserial);
CREATE INDEX ON handled (schedule);
-- What was published in a commit that Postgres lost in a failover. It may have been sent, so it may be handled.
CREATE TABLE lost_commit (event text, schedule bigint);
CREATE INDEX ON lost_commit (schedule);
-- What was published of a type whose handler is retired. No consumer may handle it.
CREATE TABLE retired (event text, schedule bigint);
-- A transaction that writes a row here has a transaction id from then on.
CREATE TABLE opened (transaction text);
-- A row of commit_fails makes COMMIT fail, by a deferred constraint; one of commit_waits makes it wait for a lock.
CREATE TABLE no_rows (id int PRIMARY KEY);
CREATE TABLE commit_fails (id int REFERENCES no_rows DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE commit_waits (lock bigint);
CREATE FUNCTION commit_waits() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_advisory_xact_lock_shared(NEW.lock); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER commit_waits AFTER INSERT ON commit_waits DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION commit_waits();

-- name: Count
INSERT INTO counter AS c VALUES ($1, 1) ON CONFLICT (stream) DO UPDATE SET n = c.n + 1 RETURNING n

-- name: Publish
INSERT INTO published (event, schedule, topic, stream, place) VALUES ($1, $2, $3, $4, $5)

-- name: PublishRetired
INSERT INTO retired (event, schedule) VALUES ($1, $2)

-- name: Handle
INSERT INTO handled (consumer, event, schedule, stream, sequence) VALUES ($1, $2, $3, $4, $5)

-- name: Remaining
-- What is not done: events not handled by a consumer, events owed, events parked. The latter two cost more, and are counted
-- only when all is handled or if $2. The event of a lost commit may wait for ever, and so may a second copy of an event that was
-- handled, where no process has its handler now. The events of stream $3 are left out, unless it is empty.
WITH expected AS (
    SELECT p.event, c.consumer FROM published p, (VALUES ('audit'), ('echo')) c (consumer)
    WHERE p.schedule = $1 AND (c.consumer = 'audit' OR p.topic = 'chaos-first') AND ($3 = '' OR p.stream <> $3)
), unhandled AS MATERIALIZED (
    SELECT count(*) AS n FROM (
        SELECT consumer, event FROM expected EXCEPT SELECT consumer, event FROM handled WHERE schedule = $1
    ) x
)
SELECT n,
    CASE WHEN n = 0 OR $2 THEN (SELECT count(*) FROM {schema}.outbox o WHERE NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = o.id)) ELSE 0 END,
    CASE WHEN n = 0 OR $2 THEN (
        SELECT count(*) FROM {schema}.parked WHERE reason <> 'dead' AND ($3 = '' OR subject <> $3)
            AND NOT EXISTS (SELECT FROM lost_commit g WHERE g.event = convert_from(body, 'UTF8')::jsonb ->> 'name')
            AND NOT (reason = 'unhandled' AND EXISTS (
                SELECT FROM handled h WHERE h.event = convert_from(body, 'UTF8')::jsonb ->> 'name' AND h.consumer = parked.consumer
            ))
    ) ELSE 0 END,
    (SELECT count(*) FROM published WHERE schedule = $1)
FROM unhandled

-- name: OpenTransactions
-- The ids of transactions that write, of all processes except those named in $2.
SELECT coalesce(array_agg(backend_xid::text), '{}') FROM pg_stat_activity
WHERE starts_with(application_name, $1) AND backend_xid IS NOT NULL AND application_name <> ALL ($2::text[])

-- name: AnyStillOpen
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_xid::text = ANY ($1))

-- name: Sessions
SELECT count(*) FROM pg_stat_activity WHERE starts_with(application_name, $1)

-- name: WorldTables
-- All but partitions and those of $2.
SELECT quote_ident(relname) FROM pg_class
WHERE relnamespace = quote_ident($1)::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> ALL ($2::text[])
ORDER BY 1

-- name: RecordLostCommits
-- What a failover to the snapshot loses.
INSERT INTO lost_commit (event, schedule)
SELECT event, schedule FROM published p WHERE NOT EXISTS (SELECT FROM {snapshot}.published s WHERE s.event = p.event)

-- name: Published
-- The events whose AfterCommit functions may have been called: those that committed, whether a failover lost them or not.
SELECT event, false FROM published WHERE schedule = $1 UNION ALL SELECT event, true FROM lost_commit WHERE schedule = $1
UNION ALL SELECT event, false FROM retired WHERE schedule = $1

-- name: Lost
SELECT p.event, c.consumer FROM published p, (VALUES ('audit'), ('echo')) c (consumer)
WHERE ($1::bigint IS NULL OR p.schedule = $1) AND (c.consumer = 'audit' OR p.topic = 'chaos-first')
    AND NOT EXISTS (SELECT FROM handled h WHERE h.schedule = p.schedule AND h.consumer = c.consumer AND h.event = p.event)
ORDER BY p.ordinal

-- name: Duplicated
-- An event that a failover lost and a handler published again is two events of one name: the lost one may have its effect, too.
SELECT h.event, h.consumer FROM handled h WHERE $1::bigint IS NULL OR h.schedule = $1
GROUP BY h.schedule, h.event, h.consumer
HAVING count(*) > 1 + (
    EXISTS (SELECT FROM lost_commit g WHERE g.schedule = h.schedule AND g.event = h.event)
    AND EXISTS (SELECT FROM published p WHERE p.schedule = h.schedule AND p.event = h.event)
)::integer

-- name: Uncommitted
-- Events that were handled although their transaction did not commit.
SELECT h.event, h.consumer FROM handled h
WHERE ($1::bigint IS NULL OR h.schedule = $1)
    AND NOT EXISTS (SELECT FROM published p WHERE p.schedule = h.schedule AND p.event = h.event)
    AND NOT EXISTS (SELECT FROM lost_commit g WHERE g.schedule = h.schedule AND g.event = h.event)

-- name: Misordered
-- Events whose predecessor in the stream, as the consumer first handled them, has a higher place or sequence.
SELECT event, consumer FROM (
    SELECT f.event, f.consumer, p.place, lag(p.place) OVER w AS place_before, f.sequence, lag(f.sequence) OVER w AS sequence_before
    FROM (
        SELECT DISTINCT ON (consumer, event) * FROM handled
        WHERE ($1::bigint IS NULL OR schedule = $1) AND stream <> ''
        ORDER BY consumer, event, ordinal
    ) f JOIN published p ON p.schedule = f.schedule AND p.event = f.event
    WINDOW w AS (PARTITION BY f.consumer, f.stream ORDER BY f.ordinal)
) x WHERE place <= place_before OR sequence <= sequence_before

-- name: DeadLetters
SELECT convert_from(body, 'UTF8')::jsonb ->> 'name', consumer || ': ' || last_error FROM {schema}.parked
WHERE reason = 'dead' AND ($1::bigint IS NULL OR convert_from(body, 'UTF8')::jsonb -> 'schedule' = to_jsonb($1::bigint))
    AND NOT EXISTS (SELECT FROM lost_commit g WHERE g.event = convert_from(body, 'UTF8')::jsonb ->> 'name')

-- name: Parked
-- For the report of a failure.
SELECT format('%s, %s of %s at %s, link %s > %s: %s, %s attempts, due in %s s, since %s s: %s',
    convert_from(body, 'UTF8')::jsonb ->> 'name', type, subject, consumer, previous, sequence, reason, attempts,
    CASE WHEN isfinite(next_at) THEN round(extract(epoch FROM next_at - clock_timestamp()), 1) END,
    round(extract(epoch FROM clock_timestamp() - parked_at), 1), left(last_error, 200))
FROM {schema}.parked ORDER BY consumer, subject, sequence
