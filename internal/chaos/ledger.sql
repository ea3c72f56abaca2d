-- name: Tables
-- What was published, written in the publishing transaction: it decides what must be handled, also where nobody knows
-- whether that committed. place is the event's in its stream by a counter whose row is locked until the commit.
CREATE TABLE published (event text, schedule bigint, topic text, stream text, place bigint, ordinal bigserial);
CREATE INDEX ON published (schedule);
CREATE TABLE counter (stream text PRIMARY KEY, n bigint);
-- What was handled, written in the handler's transaction.
CREATE TABLE handled (consumer text, event text, schedule bigint, stream text, sequence bigint, ordinal bigserial);
CREATE INDEX ON handled (schedule);
-- A transaction that opens itself with a row has its id from then on.
CREATE TABLE opened (transaction text);
-- A deferred constraint that fails in COMMIT, and one that has COMMIT wait for a lock.
CREATE TABLE nobody (id int PRIMARY KEY);
CREATE TABLE doomed (id int REFERENCES nobody DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE slow (lock bigint);
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_advisory_xact_lock_shared(NEW.lock); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow();

-- name: Count
INSERT INTO counter AS c VALUES ($1, 1) ON CONFLICT (stream) DO UPDATE SET n = c.n + 1 RETURNING n

-- name: Publish
INSERT INTO published (event, schedule, topic, stream, place) VALUES ($1, $2, $3, $4, $5)

-- name: Handle
INSERT INTO handled (consumer, event, schedule, stream, sequence) VALUES ($1, $2, $3, $4, $5)

-- name: Left
-- What is not done: events not handled by a consumer, events owed, events parked. The latter two cost more, and are looked
-- for when all is handled or if $2.
WITH expected AS (
    SELECT p.event, c.consumer FROM published p, (VALUES ('audit'), ('echo')) c (consumer)
    WHERE p.schedule = $1 AND (c.consumer = 'audit' OR p.topic = 'chaos-first')
), unhandled AS MATERIALIZED (
    SELECT count(*) AS n FROM (
        SELECT consumer, event FROM expected EXCEPT SELECT consumer, event FROM handled WHERE schedule = $1
    ) x
)
SELECT n,
    CASE WHEN n = 0 OR $2 THEN (SELECT count(*) FROM {schema}.outbox o WHERE NOT EXISTS (SELECT FROM {schema}.outbox_ack a WHERE a.id = o.id)) ELSE 0 END,
    CASE WHEN n = 0 OR $2 THEN (SELECT count(*) FROM {schema}.parked WHERE reason <> 'dead') ELSE 0 END,
    (SELECT count(*) FROM published WHERE schedule = $1)
FROM unhandled

-- name: Open
-- The transactions that write.
SELECT coalesce(array_agg(backend_xid::text), '{}') FROM pg_stat_activity
WHERE starts_with(application_name, $1) AND backend_xid IS NOT NULL

-- name: StillOpen
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_xid::text = ANY ($1))

-- name: Lost
SELECT p.event, c.consumer FROM published p, (VALUES ('audit'), ('echo')) c (consumer)
WHERE ($1::bigint IS NULL OR p.schedule = $1) AND (c.consumer = 'audit' OR p.topic = 'chaos-first')
    AND NOT EXISTS (SELECT FROM handled h WHERE h.schedule = p.schedule AND h.consumer = c.consumer AND h.event = p.event)
ORDER BY p.ordinal

-- name: Doubled
SELECT event, consumer FROM handled WHERE $1::bigint IS NULL OR schedule = $1
GROUP BY event, consumer HAVING count(*) > 1

-- name: Ghosts
-- Handled, though their transaction didn't commit.
SELECT h.event, h.consumer FROM handled h
WHERE ($1::bigint IS NULL OR h.schedule = $1)
    AND NOT EXISTS (SELECT FROM published p WHERE p.schedule = h.schedule AND p.event = h.event)

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

-- name: Dead
SELECT convert_from(body, 'UTF8')::jsonb ->> 'name', consumer || ': ' || last_error FROM {schema}.parked
WHERE reason = 'dead' AND ($1::bigint IS NULL OR convert_from(body, 'UTF8')::jsonb -> 'schedule' = to_jsonb($1::bigint))
