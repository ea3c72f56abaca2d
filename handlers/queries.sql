-- name: InsertConsumer
INSERT INTO {schema}.consumer (name) VALUES ($1) ON CONFLICT DO NOTHING

-- name: InsertConsumerTopics
INSERT INTO {schema}.consumer_topic (consumer, topic)
SELECT $1, topic FROM unnest($2::text[]) AS k (topic) ORDER BY topic
ON CONFLICT DO NOTHING

-- name: Births
SELECT topic, born_at FROM {schema}.consumer_topic WHERE consumer = $1

-- name: LockPositions
-- All in key order, so that two processes can't deadlock on them.
SELECT k.n, p.sequence, p.skipped_after, p.skipped_before
FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS k (source, topic, subject, n)
JOIN {schema}.position p ON p.consumer = $1 AND p.source = k.source AND p.topic = k.topic AND p.subject = k.subject
ORDER BY p.source, p.topic, p.subject
FOR UPDATE OF p

-- name: ParkedHeads
-- A statement of its own, after LockPositions: its snapshot must be younger than the locks.
SELECT k.n, h.sequence
FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS k (source, topic, subject, n)
CROSS JOIN LATERAL (
    SELECT sequence FROM {schema}.parked
    WHERE consumer = $1 AND source = k.source AND topic = k.topic AND subject = k.subject AND sequence > 0
    ORDER BY sequence LIMIT 1
) h

-- name: AdvancePositions
UPDATE {schema}.position p SET sequence = k.sequence
FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[]) AS k (source, topic, subject, sequence)
WHERE p.consumer = $1 AND p.source = k.source AND p.topic = k.topic AND p.subject = k.subject

-- name: InsertPositions
-- Fewer rows than asked for: another process began one of the streams meanwhile.
INSERT INTO {schema}.position (consumer, source, topic, subject, sequence)
SELECT $1, source, topic, subject, sequence
FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[]) AS k (source, topic, subject, sequence)
ORDER BY source, topic, subject
ON CONFLICT DO NOTHING

-- name: InsertInbox
INSERT INTO {schema}.inbox (event_id, consumer)
SELECT id, $1 FROM unnest($2::uuid[]) AS k (id) ORDER BY id
ON CONFLICT DO NOTHING
RETURNING event_id

-- name: ParkedIDs
SELECT event_id FROM {schema}.parked WHERE consumer = $1 AND event_id = ANY ($2::uuid[])

-- name: WakeHeads
-- The first parked event of each stream is due now, unless it waits for its own next attempt or for a person.
UPDATE {schema}.parked p SET next_at = now()
FROM unnest($2::text[], $3::text[], $4::text[]) AS k (source, topic, subject)
CROSS JOIN LATERAL (
    SELECT event_id FROM {schema}.parked
    WHERE consumer = $1 AND source = k.source AND topic = k.topic AND subject = k.subject AND sequence > 0
    ORDER BY sequence LIMIT 1
) h
WHERE p.consumer = $1 AND p.event_id = h.event_id
  AND (p.reason = 'gap' OR p.reason = 'retry' AND p.next_at = 'infinity')

-- name: ClaimPosition
-- Sequence 0 is a stream of which nothing was handled: a row to lock.
INSERT INTO {schema}.position (consumer, source, topic, subject, sequence) VALUES ($1, $2, $3, $4, 0)
ON CONFLICT DO NOTHING

-- name: LockPosition
SELECT sequence, skipped_after, skipped_before FROM {schema}.position
WHERE consumer = $1 AND source = $2 AND topic = $3 AND subject = $4
FOR UPDATE

-- name: ParkedHead
SELECT coalesce(min(sequence), 0) FROM {schema}.parked
WHERE consumer = $1 AND source = $2 AND topic = $3 AND subject = $4 AND sequence > 0

-- name: AdvancePosition
UPDATE {schema}.position SET sequence = $5
WHERE consumer = $1 AND source = $2 AND topic = $3 AND subject = $4 AND sequence < $5

-- name: Skip
UPDATE {schema}.position SET skipped_after = $5, skipped_before = $6
WHERE consumer = $1 AND source = $2 AND topic = $3 AND subject = $4

-- name: InsertParked
-- $5 is the delay in seconds; null: for ever.
INSERT INTO {schema}.parked (
    consumer, event_id, reason, attempts, next_at, last_error,
    source, topic, type, subject, sequence, previous, recorded_at, database, timeout_key, timeout_name,
    content_type, headers, body
) VALUES (
    $1, $2, $3, $4, coalesce(clock_timestamp() + make_interval(secs => $5), 'infinity'), $6,
    $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19
)
ON CONFLICT DO NOTHING

-- name: TakeDue
-- Whoever takes an event has it for $3 seconds; should it die, the event is due again then.
UPDATE {schema}.parked p SET next_at = clock_timestamp() + make_interval(secs => $3)
FROM (
    SELECT event_id FROM {schema}.parked
    WHERE consumer = $1 AND reason <> 'dead' AND next_at <= clock_timestamp()
    ORDER BY next_at LIMIT $2
    FOR UPDATE SKIP LOCKED
) due
WHERE p.consumer = $1 AND p.event_id = due.event_id
RETURNING p.event_id, p.source, p.topic, p.subject, p.sequence

-- name: NextDue
-- In seconds from now; no row: nothing waits for a time.
SELECT extract(epoch FROM next_at - clock_timestamp())::float8 FROM {schema}.parked
WHERE consumer = $1 AND reason <> 'dead' AND next_at < 'infinity'
ORDER BY next_at LIMIT 1

-- name: WakeStranded
-- A follower whose head is gone without waking it: somebody deleted rows by hand.
UPDATE {schema}.parked p SET next_at = now()
WHERE p.consumer = $1 AND p.reason <> 'dead' AND p.next_at = 'infinity'
  AND NOT EXISTS (
    SELECT FROM {schema}.parked q
    WHERE q.consumer = $1 AND q.source = p.source AND q.topic = p.topic AND q.subject = p.subject
      AND q.sequence > 0 AND q.sequence < p.sequence
)

-- name: LoadHead
SELECT consumer, event_id, reason, attempts, CASE WHEN next_at < 'infinity' THEN next_at END, last_error, parked_at,
       extract(epoch FROM clock_timestamp() - parked_at)::float8,
       source, topic, type, subject, sequence, previous, recorded_at, database, timeout_key, timeout_name,
       content_type, headers, body
FROM {schema}.parked
WHERE consumer = $1 AND source = $2 AND topic = $3 AND subject = $4 AND sequence > 0
ORDER BY sequence LIMIT 1
FOR UPDATE

-- name: LoadFollowers
SELECT consumer, event_id, reason, attempts, CASE WHEN next_at < 'infinity' THEN next_at END, last_error, parked_at,
       extract(epoch FROM clock_timestamp() - parked_at)::float8,
       source, topic, type, subject, sequence, previous, recorded_at, database, timeout_key, timeout_name,
       content_type, headers, body
FROM {schema}.parked
WHERE consumer = $1 AND source = $2 AND topic = $3 AND subject = $4 AND sequence > 0
ORDER BY sequence LIMIT $5
FOR UPDATE

-- name: LoadParked
SELECT consumer, event_id, reason, attempts, CASE WHEN next_at < 'infinity' THEN next_at END, last_error, parked_at,
       extract(epoch FROM clock_timestamp() - parked_at)::float8,
       source, topic, type, subject, sequence, previous, recorded_at, database, timeout_key, timeout_name,
       content_type, headers, body
FROM {schema}.parked
WHERE consumer = $1 AND event_id = $2
FOR UPDATE

-- name: Reschedule
-- $6 as in InsertParked.
UPDATE {schema}.parked
SET reason = $3, attempts = $4, last_error = $5,
    next_at = coalesce(clock_timestamp() + make_interval(secs => $6), 'infinity')
WHERE consumer = $1 AND event_id = $2 AND reason <> 'dead'

-- name: DeleteParked
DELETE FROM {schema}.parked WHERE consumer = $1 AND event_id = $2

-- name: DeleteFollowers
DELETE FROM {schema}.parked WHERE consumer = $1 AND event_id = ANY ($2::uuid[])

-- name: List
-- $1: dead letters (true) or what waits (false). Empty text and null mean any.
SELECT consumer, event_id, reason, attempts, CASE WHEN next_at < 'infinity' THEN next_at END, last_error, parked_at,
       extract(epoch FROM clock_timestamp() - parked_at)::float8,
       source, topic, type, subject, sequence, previous, recorded_at, database, timeout_key, timeout_name,
       content_type, headers, body
FROM {schema}.parked
WHERE (reason = 'dead') = $1
  AND ($2 = '' OR consumer = $2) AND ($3::uuid IS NULL OR event_id = $3)
  AND ($4 = '' OR source = $4) AND ($5 = '' OR topic = $5) AND ($6 = '' OR type = $6) AND ($7 = '' OR subject = $7)
ORDER BY parked_at, consumer, sequence, event_id
LIMIT $8

-- name: Dead
SELECT consumer, event_id FROM {schema}.parked
WHERE reason = 'dead'
  AND ($1 = '' OR consumer = $1) AND ($2::uuid IS NULL OR event_id = $2)
  AND ($3 = '' OR source = $3) AND ($4 = '' OR topic = $4) AND ($5 = '' OR type = $5) AND ($6 = '' OR subject = $6)
ORDER BY parked_at, consumer, sequence, event_id
LIMIT $7

-- name: RetryFree
-- Those that a handler's transaction has locked are left, and returned: to wait for one while holding others is how
-- deadlocks come about.
WITH wanted AS (
    SELECT * FROM unnest($1::text[], $2::uuid[]) AS w (consumer, event_id)
), free AS (
    SELECT p.consumer, p.event_id FROM {schema}.parked p JOIN wanted USING (consumer, event_id)
    WHERE p.reason = 'dead'
    FOR UPDATE OF p SKIP LOCKED
), retried AS (
    UPDATE {schema}.parked p SET reason = 'retry', attempts = 0, next_at = now()
    FROM free
    WHERE p.consumer = free.consumer AND p.event_id = free.event_id
)
SELECT consumer, event_id FROM wanted EXCEPT SELECT consumer, event_id FROM free

-- name: RetryDead
UPDATE {schema}.parked SET reason = 'retry', attempts = 0, next_at = now()
WHERE consumer = $1 AND event_id = $2 AND reason = 'dead'

-- name: AcceptGap
-- Only the first of a stream: what waits behind it has its predecessor.
UPDATE {schema}.parked p SET reason = 'retry', next_at = now()
WHERE p.consumer = $1 AND p.event_id = $2 AND p.reason = 'gap'
  AND NOT EXISTS (
    SELECT FROM {schema}.parked q
    WHERE q.consumer = p.consumer AND q.source = p.source AND q.topic = p.topic AND q.subject = p.subject
      AND q.sequence > 0 AND q.sequence < p.sequence
)

-- name: TryKeeper
SELECT pg_try_advisory_xact_lock(hashtextextended('rocketflow/handlers/keep:' || $1, 0))

-- name: ExpirePositions
-- $3: microseconds of the epoch. A row in use is left for the next time. (The OFFSET has parked rows looked up one by
-- one.)
DELETE FROM {schema}.position
WHERE ctid = ANY (ARRAY (
    SELECT p.ctid FROM {schema}.position p
    WHERE p.ctid >= $1::text::tid AND p.ctid < $2::text::tid AND p.sequence > 0 AND p.sequence < $3
      AND NOT EXISTS (
        SELECT FROM {schema}.parked q
        WHERE q.consumer = p.consumer AND q.source = p.source AND q.topic = p.topic AND q.subject = p.subject AND q.sequence > 0
        OFFSET 0
    )
    FOR UPDATE SKIP LOCKED
))

-- name: ExpireInbox
DELETE FROM {schema}.inbox_default
WHERE ctid = ANY (ARRAY (
    SELECT ctid FROM {schema}.inbox_default WHERE handled_at < clock_timestamp() - make_interval(secs => $1) LIMIT $2
))

-- name: Postpone
UPDATE {schema}.parked SET next_at = 'infinity' WHERE consumer = $1 AND event_id = $2 AND reason <> 'dead'
