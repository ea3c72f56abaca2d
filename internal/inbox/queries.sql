-- name: Register
-- The consumer, its retentions, its group, and its routes. begin_at is written with the first registration of a topic only.
WITH named AS (
    INSERT INTO {schema}.consumer AS c (name, inbox_retention, position_retention, group_name)
    VALUES ($1::text, pg_catalog.make_interval(secs => $2::float8), pg_catalog.make_interval(secs => $3::float8), $8::text)
    ON CONFLICT (name) DO UPDATE SET inbox_retention = excluded.inbox_retention, position_retention = excluded.position_retention,
        group_name = excluded.group_name
    WHERE c.inbox_retention <> excluded.inbox_retention OR c.position_retention <> excluded.position_retention
       OR c.group_name <> excluded.group_name
), topics AS (
    INSERT INTO {schema}.consumer_topic (consumer, topic, begin_at)
    SELECT DISTINCT $1::text, topic, CASE WHEN $6::boolean THEN clock_timestamp() ELSE coalesce($7::timestamptz, '-infinity'::timestamptz) END
    FROM pg_catalog.unnest($4::text[]) AS k (topic) ORDER BY topic
    ON CONFLICT DO NOTHING
)
INSERT INTO {schema}.consumer_handler (consumer, topic, type)
SELECT $1::text, topic, type FROM ROWS FROM (pg_catalog.unnest($4::text[]), pg_catalog.unnest($5::text[])) AS k (topic, type) ORDER BY topic, type
ON CONFLICT DO NOTHING

-- name: Topics
SELECT topic, born_at, CASE WHEN begin_at > '-infinity'::timestamptz THEN begin_at END FROM {schema}.consumer_topic WHERE consumer = $1::text

-- name: Recorded
SELECT topic, type FROM {schema}.consumer_handler WHERE consumer = $1::text ORDER BY topic, type

-- name: RecordedOf
-- Which of these routes have a handler in some process.
SELECT h.topic, h.type
FROM ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[])) AS k (topic, type)
JOIN {schema}.consumer_handler h ON h.consumer = $1::text AND h.topic = k.topic AND h.type = k.type

-- name: Retire
DELETE FROM {schema}.consumer_handler WHERE consumer = $1::text AND topic = $2::text AND type = $3::text

-- name: WakeRetired
-- Events that wait for a retired handler are due: they are settled without a handler then.
UPDATE {schema}.parked SET reason = 'gap', next_at = now()
WHERE consumer = $1::text AND topic = $2::text AND type = $3::text AND reason = 'unhandled'

-- name: WakeUnhandled
-- Events that wait for a handler that this process has are due, and those whose handler isn't recorded any more: they were parked beside
-- a retirement. In a stream only the first one, or one whose predecessors were handled.
WITH RECURSIVE waiting AS ( -- each topic and type by one step in the index, however many events wait
    (SELECT u.topic, u.type FROM {schema}.parked u WHERE u.consumer = $1::text AND u.reason = 'unhandled' ORDER BY u.topic, u.type LIMIT 1)
    UNION ALL
    SELECT n.topic, n.type
    FROM waiting w
    CROSS JOIN LATERAL (
        SELECT u.topic, u.type FROM {schema}.parked u
        WHERE u.consumer = $1::text AND u.reason = 'unhandled' AND (u.topic, u.type) > (w.topic, w.type)
        ORDER BY u.topic, u.type LIMIT 1
    ) n
)
UPDATE {schema}.parked p SET reason = 'gap', next_at = now()
FROM (
    SELECT u.consumer, u.source, u.event_id
    FROM waiting k
    JOIN {schema}.parked u ON u.consumer = $1::text AND u.topic = k.topic AND u.type = k.type AND u.reason = 'unhandled'
    WHERE (
        EXISTS (SELECT FROM ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[])) AS own (topic, type) WHERE own.topic = k.topic AND own.type = k.type)
        OR NOT EXISTS (SELECT FROM {schema}.consumer_handler h WHERE h.consumer = $1::text AND h.topic = k.topic AND h.type = k.type)
    ) AND (u.sequence = 0 OR NOT EXISTS (
        SELECT FROM {schema}.parked q
        WHERE q.consumer = u.consumer AND q.source = u.source AND q.topic = u.topic AND q.subject = u.subject
          AND q.sequence > 0 AND q.sequence < u.sequence
    ) OR EXISTS (
        SELECT FROM {schema}.position o
        WHERE o.consumer = u.consumer AND o.source = u.source AND o.topic = u.topic AND o.subject = u.subject AND o.sequence >= u.previous
    ))
    LIMIT $4::bigint
    FOR UPDATE OF u SKIP LOCKED
) free
WHERE p.consumer = free.consumer AND p.source = free.source AND p.event_id = free.event_id

-- name: Now
SELECT clock_timestamp()

-- name: Conditions
-- The time, and what is paused.
SELECT clock_timestamp(), ARRAY(SELECT ARRAY[kind, topic, type, subject] FROM {schema}.pause WHERE consumer = $1::text)

-- name: Pauses
SELECT kind, topic, type, subject, paused_at, actor, reason FROM {schema}.pause
WHERE consumer = $1::text
ORDER BY kind, topic, type, subject
LIMIT $2::bigint

-- name: WakePaused
-- Events whose handler or stream is not paused any more are due. They were next in their streams when they were parked.
UPDATE {schema}.parked p SET reason = 'retry', next_at = now()
FROM (
    SELECT u.consumer, u.source, u.event_id
    FROM {schema}.parked u
    WHERE u.consumer = $1::text AND u.reason = 'paused' AND NOT EXISTS (
        SELECT FROM {schema}.pause x
        WHERE x.consumer = u.consumer AND x.topic = u.topic
          AND (x.kind = 'handler' AND x.type = u.type OR x.kind = 'stream' AND x.subject = u.subject)
    )
    LIMIT $2::bigint
    FOR UPDATE OF u SKIP LOCKED
) free
WHERE p.consumer = free.consumer AND p.source = free.source AND p.event_id = free.event_id

-- name: LockPositions
-- All in key order, so that two processes can't deadlock on them.
SELECT k.n::bigint, p.sequence, p.skipped
FROM ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[])) WITH ORDINALITY AS k (source, topic, subject, n)
JOIN {schema}.position p ON p.consumer = $1::text AND p.source = k.source AND p.topic = k.topic AND p.subject = k.subject
ORDER BY p.source, p.topic, p.subject
FOR UPDATE OF p

-- name: ClaimPositions
-- Sequence 0 is a stream of which nothing was handled: a row to lock before its first event runs.
INSERT INTO {schema}.position (consumer, source, topic, subject, sequence)
SELECT $1::text, source, topic, subject, 0
FROM ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[])) AS k (source, topic, subject)
ORDER BY source, topic, subject
ON CONFLICT DO NOTHING

-- name: ParkedHeads
-- A statement of its own, after LockPositions: its snapshot must be younger than the locks.
SELECT k.n::bigint, h.sequence, h.previous, h.event_id::text
FROM ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[])) WITH ORDINALITY AS k (source, topic, subject, n)
CROSS JOIN LATERAL (
    SELECT sequence, previous, event_id FROM {schema}.parked
    WHERE consumer = $1::text AND source = k.source AND topic = k.topic AND subject = k.subject AND sequence > 0
    ORDER BY sequence LIMIT 1
) h

-- name: AdvancePositions
-- now() is when the turn's transaction began.
UPDATE {schema}.position p SET sequence = k.sequence, handled_at = clock_timestamp(),
    took_ms = LEAST(GREATEST(extract(epoch FROM clock_timestamp() - now()) * 1000::numeric, 0::numeric), 2147483647::numeric)::integer,
    failed_attempts = k.failed
FROM ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[]), pg_catalog.unnest($5::bigint[]), pg_catalog.unnest($6::integer[])) AS k (source, topic, subject, sequence, failed)
WHERE p.consumer = $1::text AND p.source = k.source AND p.topic = k.topic AND p.subject = k.subject AND p.sequence < k.sequence

-- name: Skip
-- The position's row is locked.
UPDATE {schema}.position SET skipped = $5::bigint[]
WHERE consumer = $1::text AND source = $2::text AND topic = $3::text AND subject = $4::text

-- name: InsertInbox
-- Which of these events are new to the consumer, and the digest of those that are not (null: inserted at this moment). $5 null: no handler
-- has failed with any of them.
WITH event AS (
    SELECT id::uuid AS event_id, source, digest, failed
    FROM ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::bigint[]), pg_catalog.unnest($5::integer[])) AS k (id, source, digest, failed)
), entered AS (
    INSERT INTO {schema}.inbox (event_id, source, consumer, digest, failed_attempts)
    SELECT event_id, source, $1::text, digest, failed FROM event ORDER BY event_id, source
    ON CONFLICT DO NOTHING
    RETURNING event_id, source
)
SELECT e.event_id::text, e.source, n.event_id IS NOT NULL, i.digest
FROM event e
LEFT JOIN entered n ON n.event_id = e.event_id AND n.source = e.source
LEFT JOIN {schema}.inbox i ON i.event_id = e.event_id AND i.source = e.source AND i.consumer = $1::text

-- name: DeleteInbox
DELETE FROM {schema}.inbox i
USING ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[])) AS k (id, source)
WHERE i.event_id = k.id::uuid AND i.source = k.source AND i.consumer = $1::text

-- name: FindInbox
-- Which of these events are in the inbox, and the digest of each.
SELECT i.event_id::text, i.source, i.digest
FROM ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[])) AS k (id, source)
JOIN {schema}.inbox i ON i.event_id = k.id::uuid AND i.source = k.source AND i.consumer = $1::text

-- name: FindParked
-- Which of these events are parked.
SELECT p.event_id::text, p.source
FROM ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[])) AS k (id, source)
JOIN {schema}.parked p ON p.consumer = $1::text AND p.source = k.source AND p.event_id = k.id::uuid

-- name: Wake
-- Makes the first parked event of each stream due, unless it waits for its next attempt, for a handler or for an operator; and
-- the first one whose predecessor was handled, if that of an earlier one was not.
UPDATE {schema}.parked p SET next_at = now()
FROM ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[]), pg_catalog.unnest($5::bigint[])) AS k (source, topic, subject, last)
CROSS JOIN LATERAL (
    (SELECT event_id FROM {schema}.parked
    WHERE consumer = $1::text AND source = k.source AND topic = k.topic AND subject = k.subject AND sequence > 0
    ORDER BY sequence LIMIT 1)
    UNION
    (SELECT event_id FROM {schema}.parked
    WHERE consumer = $1::text AND source = k.source AND topic = k.topic AND subject = k.subject AND sequence > 0 AND previous <= k.last
    ORDER BY sequence LIMIT 1)
) h
WHERE p.consumer = $1::text AND p.source = k.source AND p.event_id = h.event_id
  AND (p.reason IN ('gap', 'busy') OR p.reason = 'retry' AND p.next_at = 'infinity'::timestamptz)

-- name: InsertParked
-- $5 is the delay in seconds; null: until another event makes it due.
INSERT INTO {schema}.parked (
    consumer, event_id, reason, attempts, next_at, last_error,
    source, topic, type, subject, sequence, previous, recorded_at, database, timeout_key, timeout_name,
    content_type, headers, body
) VALUES (
    $1::text, $2::text::uuid, $3::text, $4::integer,
    coalesce(clock_timestamp() + pg_catalog.make_interval(secs => $5::float8), 'infinity'::timestamptz), $6::text,
    $7::text, $8::text, $9::text, $10::text, $11::bigint, $12::bigint, $13::timestamptz, $14::text, $15::text, $16::text,
    $17::text, $18::text::jsonb, $19::bytea
)
ON CONFLICT DO NOTHING

-- name: TakeDue
-- Claims due events for $3 seconds, after which they are due again: a process that has claimed them may have died.
UPDATE {schema}.parked p SET next_at = clock_timestamp() + pg_catalog.make_interval(secs => $3::float8)
FROM (
    SELECT source, event_id FROM {schema}.parked
    WHERE consumer = $1::text AND reason <> 'dead' AND next_at <= clock_timestamp()
      AND NOT EXISTS (SELECT FROM {schema}.pause x WHERE x.consumer = $1::text AND x.kind = 'consumer')
    ORDER BY next_at LIMIT $2::bigint
    FOR UPDATE SKIP LOCKED
) due
WHERE p.consumer = $1::text AND p.source = due.source AND p.event_id = due.event_id
RETURNING p.event_id::text, p.source, p.topic, p.subject, p.sequence, p.timeout_name <> ''

-- name: PutBack
-- Releases the claim of events that can't be run now.
UPDATE {schema}.parked p SET next_at = clock_timestamp() + pg_catalog.make_interval(secs => $4::float8)
FROM ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[])) AS k (source, id)
WHERE p.consumer = $1::text AND p.source = k.source AND p.event_id = k.id::uuid AND p.reason <> 'dead'

-- name: NextDue
-- When the next event is due, in seconds from now; no row: none waits for a time.
SELECT extract(epoch FROM next_at - clock_timestamp())::float8 FROM {schema}.parked
WHERE consumer = $1::text AND reason <> 'dead' AND next_at < 'infinity'::timestamptz
ORDER BY next_at LIMIT 1

-- name: WakeStranded
-- Events whose earlier one is gone without having made them due, because rows were deleted by hand.
UPDATE {schema}.parked p SET next_at = now()
WHERE p.consumer = $1::text AND p.reason IN ('retry', 'gap', 'busy') AND p.next_at = 'infinity'::timestamptz
  AND NOT EXISTS (
    SELECT FROM {schema}.parked q
    WHERE q.consumer = $1::text AND q.source = p.source AND q.topic = p.topic AND q.subject = p.subject
      AND q.sequence > 0 AND q.sequence < p.sequence
)

-- name: LoadStream
-- The first parked events of a stream.
SELECT consumer, event_id::text, reason, attempts, CASE WHEN next_at < 'infinity'::timestamptz THEN next_at END, last_error, parked_at,
       extract(epoch FROM clock_timestamp() - parked_at)::float8,
       source, topic, type, subject, sequence, previous, recorded_at, database, timeout_key, timeout_name,
       content_type, headers::text, body, edited, pg_catalog.octet_length(body)
FROM {schema}.parked
WHERE consumer = $1::text AND source = $2::text AND topic = $3::text AND subject = $4::text AND sequence > 0
ORDER BY sequence LIMIT $5::bigint
FOR UPDATE

-- name: LoadParked
SELECT consumer, event_id::text, reason, attempts, CASE WHEN next_at < 'infinity'::timestamptz THEN next_at END, last_error, parked_at,
       extract(epoch FROM clock_timestamp() - parked_at)::float8,
       source, topic, type, subject, sequence, previous, recorded_at, database, timeout_key, timeout_name,
       content_type, headers::text, body, edited, pg_catalog.octet_length(body)
FROM {schema}.parked
WHERE consumer = $1::text AND source = $2::text AND event_id = $3::text::uuid
FOR UPDATE

-- name: Reschedule
-- $7 as in InsertParked.
UPDATE {schema}.parked
SET reason = $4::text, attempts = $5::integer, last_error = $6::text,
    next_at = coalesce(clock_timestamp() + pg_catalog.make_interval(secs => $7::float8), 'infinity'::timestamptz)
WHERE consumer = $1::text AND source = $2::text AND event_id = $3::text::uuid AND reason <> 'dead'

-- name: DeadUnordered
-- The event becomes a dead letter without order, which holds back no other.
UPDATE {schema}.parked
SET reason = 'dead', sequence = 0, previous = 0, last_error = $4::text, next_at = 'infinity'::timestamptz
WHERE consumer = $1::text AND source = $2::text AND event_id = $3::text::uuid

-- name: DeadUnorderedBetween
-- The same for the events of a stream between two sequences, exclusively.
UPDATE {schema}.parked
SET reason = 'dead', sequence = 0, previous = 0, last_error = $7::text, next_at = 'infinity'::timestamptz
WHERE consumer = $1::text AND source = $2::text AND topic = $3::text AND subject = $4::text
  AND sequence > $5::bigint AND sequence < $6::bigint AND sequence > 0
RETURNING event_id::text, type

-- name: DeleteParked
DELETE FROM {schema}.parked p
USING ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[])) AS k (source, id)
WHERE p.consumer = $1::text AND p.source = k.source AND p.event_id = k.id::uuid

-- name: Postpone
UPDATE {schema}.parked SET next_at = 'infinity'::timestamptz
WHERE consumer = $1::text AND source = $2::text AND event_id = $3::text::uuid AND reason <> 'dead'

-- name: EndTimeout
-- Ends the epoch of a timeout of this database whose event was settled without firing.
WITH settled AS (
    DELETE FROM {schema}.timeout t
    USING {schema}.installation i
    WHERE t.key = $1::text AND t.name = $2::text AND t.epoch = $3::text::uuid AND i.id::text = $4::text
    RETURNING t.key, t.name, t.epoch, t.armed_at, t.due_at, t.topic, t.type, t.subject
)
INSERT INTO {schema}.timeout_history (key, name, epoch, armed_at, due_at, topic, type, subject, outcome, consumer)
SELECT key, name, epoch, armed_at, due_at, topic, type, subject, 'settled', $5::text FROM settled

-- name: ParkedPage
-- The keys of the next dead letters ($1) or other parked events after ($9, $10, $11, $12, $13), the longest parked first. Null: from the
-- beginning. Empty text and null mean any. $8 is a kind of errors, as operate.DeadLetterGroups makes it. The consumers are found by the
-- primary key, one after the other, and an event with an id by that key. Of each consumer, at most $15 rows are looked at, and of all of
-- them the first $15 in the list's order; the last columns of each row, and the row without an event that comes last, say how far that
-- went. A branch of the union that isn't wanted reads nothing.
WITH RECURSIVE every AS (
    (SELECT consumer FROM {schema}.parked WHERE $2::text = '' ORDER BY consumer LIMIT 1)
    UNION ALL
    SELECT n.consumer FROM every e CROSS JOIN LATERAL (
        SELECT consumer FROM {schema}.parked p WHERE p.consumer > e.consumer ORDER BY consumer LIMIT 1
    ) n
), wanted AS (
    SELECT consumer FROM every
    UNION ALL
    SELECT $2::text WHERE $2::text <> ''
), scanned AS MATERIALIZED (
    SELECT s.* FROM wanted w CROSS JOIN LATERAL (
        (SELECT parked_at, sequence, event_id, consumer, source, topic, type, subject, pg_catalog.left(last_error, 200) AS error FROM {schema}.parked
        WHERE $1::boolean AND $3::text IS NULL AND reason = 'dead' AND consumer = w.consumer
          AND (parked_at, sequence, event_id, consumer, source) > (COALESCE($9::timestamptz, '-infinity'::timestamptz), $10::bigint, $11::text::uuid, $12::text, $13::text)
        ORDER BY parked_at, sequence, event_id, source LIMIT $15::bigint)
        UNION ALL
        (SELECT parked_at, sequence, event_id, consumer, source, topic, type, subject, pg_catalog.left(last_error, 200) AS error FROM {schema}.parked
        WHERE NOT $1::boolean AND $3::text IS NULL AND reason <> 'dead' AND consumer = w.consumer
          AND (parked_at, sequence, event_id, consumer, source) > (COALESCE($9::timestamptz, '-infinity'::timestamptz), $10::bigint, $11::text::uuid, $12::text, $13::text)
        ORDER BY parked_at, sequence, event_id, source LIMIT $15::bigint)
        UNION ALL
        (SELECT parked_at, sequence, event_id, consumer, source, topic, type, subject, pg_catalog.left(last_error, 200) AS error FROM {schema}.parked
        WHERE $3::text IS NOT NULL AND (reason = 'dead') = $1::boolean AND consumer = w.consumer AND event_id = $3::text::uuid
          AND (parked_at, sequence, event_id, consumer, source) > (COALESCE($9::timestamptz, '-infinity'::timestamptz), $10::bigint, $11::text::uuid, $12::text, $13::text)
        ORDER BY parked_at, sequence, source LIMIT $15::bigint)
    ) s
    ORDER BY parked_at, sequence, event_id, consumer, source
    LIMIT $15::bigint
), found AS (
    SELECT parked_at, sequence, event_id, consumer, source FROM scanned
    WHERE ($4::text = '' OR source = $4::text) AND ($5::text = '' OR topic = $5::text) AND ($6::text = '' OR type = $6::text)
      AND ($7::text = '' OR subject = $7::text)
      AND ($8::text = '' OR pg_catalog.regexp_replace(error, '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9]+', '…', 'g') = $8::text)
    ORDER BY parked_at, sequence, event_id, consumer, source
    LIMIT $14::bigint
), reached AS (
    SELECT parked_at, sequence, event_id, consumer, source FROM scanned
    ORDER BY parked_at DESC, sequence DESC, event_id DESC, consumer DESC, source DESC LIMIT 1
)
SELECT f.parked_at, f.sequence, f.event_id::text, f.consumer, f.source,
    (SELECT pg_catalog.count(*) FROM scanned), r.parked_at, r.sequence, r.event_id::text, r.consumer, r.source
FROM (SELECT 1) one LEFT JOIN reached r ON true LEFT JOIN found f ON true
ORDER BY f.parked_at, f.sequence, f.event_id, f.consumer, f.source

-- name: ParkedRows
-- The parked events with keys, in the order of the keys, with their bodies only if $4. (The OFFSET has rows looked up one by one.)
SELECT p.consumer, p.event_id::text, p.reason, p.attempts, CASE WHEN p.next_at < 'infinity'::timestamptz THEN p.next_at END, p.last_error, p.parked_at,
       extract(epoch FROM clock_timestamp() - p.parked_at)::float8,
       p.source, p.topic, p.type, p.subject, p.sequence, p.previous, p.recorded_at, p.database, p.timeout_key, p.timeout_name,
       p.content_type, p.headers::text, CASE WHEN $4::boolean THEN p.body END, p.edited, pg_catalog.octet_length(p.body)
FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[])) WITH ORDINALITY AS k (consumer, source, id, n)
CROSS JOIN LATERAL (
    SELECT * FROM {schema}.parked WHERE consumer = k.consumer AND source = k.source AND event_id = k.id::uuid OFFSET 0
) p
ORDER BY k.n

-- name: RetryFree
-- Retries the dead letters that no handler's transaction has locked, and returns which, with their state before: waiting for one while
-- holding locks of others could deadlock.
WITH wanted AS (
    SELECT consumer, source, id::uuid AS event_id FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[])) AS w (consumer, source, id)
), free AS (
    SELECT p.consumer, p.source, p.event_id, p.type, p.subject, p.attempts, p.last_error FROM {schema}.parked p JOIN wanted USING (consumer, source, event_id)
    WHERE p.reason = 'dead'
    FOR UPDATE OF p SKIP LOCKED
), retried AS (
    UPDATE {schema}.parked p SET reason = 'retry', attempts = 0, next_at = now()
    FROM free
    WHERE p.consumer = free.consumer AND p.source = free.source AND p.event_id = free.event_id
)
SELECT w.consumer, w.source, w.event_id::text, f.event_id IS NOT NULL, COALESCE(f.type, ''), COALESCE(f.subject, ''), COALESCE(f.attempts, 0),
    COALESCE(f.last_error, '')
FROM wanted w LEFT JOIN free f USING (consumer, source, event_id)

-- name: RetryDead
-- The same for one, which is waited for.
WITH dead AS (
    SELECT p.consumer, p.source, p.event_id, p.type, p.subject, p.attempts, p.last_error FROM {schema}.parked p
    WHERE p.consumer = $1::text AND p.source = $2::text AND p.event_id = $3::text::uuid AND p.reason = 'dead'
    FOR UPDATE OF p
)
UPDATE {schema}.parked p SET reason = 'retry', attempts = 0, next_at = now()
FROM dead
WHERE p.consumer = dead.consumer AND p.source = dead.source AND p.event_id = dead.event_id
RETURNING p.consumer, p.source, p.event_id::text, true, dead.type, dead.subject, dead.attempts, dead.last_error

-- name: KeepOriginal
-- The content of a parked event before it is edited for the first time.
INSERT INTO {schema}.edited_event (consumer, source, event_id, content_type, headers, body)
SELECT consumer, source, event_id, content_type, headers, body FROM {schema}.parked
WHERE consumer = $1::text AND source = $2::text AND event_id = $3::text::uuid AND NOT edited
ON CONFLICT (consumer, event_id, source) DO UPDATE SET
    content_type = excluded.content_type, headers = excluded.headers, body = excluded.body, edited_at = clock_timestamp()

-- name: EditDead
UPDATE {schema}.parked
SET content_type = $4::text, headers = $5::text::jsonb, body = $6::bytea, edited = true, reason = 'retry', attempts = 0, next_at = now()
WHERE consumer = $1::text AND source = $2::text AND event_id = $3::text::uuid

-- name: Originals
SELECT consumer, source, content_type, headers::text, body, edited_at FROM {schema}.edited_event
WHERE consumer = $1::text AND event_id = $2::text::uuid
ORDER BY source

-- name: ExpireOriginals
DELETE FROM {schema}.edited_event
WHERE ctid = ANY (ARRAY (
    SELECT e.ctid FROM {schema}.edited_event e
    WHERE e.edited_at < clock_timestamp() - pg_catalog.make_interval(secs => $1::float8) AND NOT EXISTS (
        SELECT FROM {schema}.parked p WHERE p.consumer = e.consumer AND p.event_id = e.event_id AND p.source = e.source
    )
    LIMIT $2::bigint
))

-- name: AttemptOf
-- What became of an event that was parked; no row: it isn't any more. While the whole consumer is paused, nothing takes a due event.
SELECT CASE WHEN reason = 'retry' AND EXISTS (SELECT FROM {schema}.pause x WHERE x.consumer = $1::text AND x.kind = 'consumer') THEN 'paused' ELSE reason END,
    attempts, last_error
FROM {schema}.parked
WHERE consumer = $1::text AND source = $2::text AND event_id = $3::text::uuid

-- name: AcceptGap
-- Only for the first parked event of a stream: the predecessors of the others are parked.
UPDATE {schema}.parked p SET reason = 'retry', next_at = now()
WHERE p.consumer = $1::text AND p.event_id = $2::text::uuid AND p.reason = 'gap'
  AND NOT EXISTS (
    SELECT FROM {schema}.parked q
    WHERE q.consumer = p.consumer AND q.source = p.source AND q.topic = p.topic AND q.subject = p.subject
      AND q.sequence > 0 AND q.sequence < p.sequence
)

-- name: ResetPosition
WITH old AS (
    SELECT sequence FROM {schema}.position
    WHERE consumer = $1::text AND source = $2::text AND topic = $3::text AND subject = $4::text
    FOR UPDATE
)
UPDATE {schema}.position p SET sequence = $5::bigint FROM old
WHERE p.consumer = $1::text AND p.source = $2::text AND p.topic = $3::text AND p.subject = $4::text
RETURNING old.sequence

-- name: Retention
-- The longest inbox retention of all consumers, at least $1, in seconds.
SELECT greatest(pg_catalog.max(extract(epoch FROM inbox_retention)::float8), $1::float8) FROM {schema}.consumer

-- name: ExpirePositions
-- $3: seconds that are added to the retention of each consumer. A row in use is left for the next time. (The OFFSET has
-- parked rows looked up one by one.)
DELETE FROM {schema}.position
WHERE ctid = ANY (ARRAY (
    SELECT p.ctid FROM {schema}.position p JOIN {schema}.consumer c ON c.name = p.consumer
    WHERE p.ctid >= $1::text::tid AND p.ctid < $2::text::tid
      AND p.sequence < (extract(epoch FROM clock_timestamp() - c.position_retention - pg_catalog.make_interval(secs => $3::float8)) * 1000000::numeric)::bigint
      AND NOT EXISTS (
        SELECT FROM {schema}.parked q
        WHERE q.consumer = p.consumer AND q.source = p.source AND q.topic = p.topic AND q.subject = p.subject AND q.sequence > 0
        OFFSET 0
    )
    FOR UPDATE OF p SKIP LOCKED
))

-- name: ExpireInbox
DELETE FROM {schema}.inbox_default
WHERE ctid = ANY (ARRAY (
    SELECT ctid FROM {schema}.inbox_default WHERE handled_at < clock_timestamp() - pg_catalog.make_interval(secs => $1::float8) LIMIT $2::bigint
))
