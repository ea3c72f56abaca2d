-- name: DueWork
-- Counts what can be done at the present instant: owed events, timeouts that are due and whose event is not parked, parked
-- events that are due, waiting events of sagas that are due. An acknowledgement is looked up by id in a subquery: a join
-- would read all acknowledgements.
SELECT
    (SELECT count(*) FROM {schema}.outbox o
        WHERE o.xid >= (SELECT mark FROM {schema}.outbox_sweep) AND (SELECT count(*) FROM {schema}.outbox_ack a WHERE a.id = o.id) = 0),
    (SELECT count(*) FROM {schema}.timeout t
        WHERE t.due_at <= clock_timestamp() AND NOT EXISTS (SELECT FROM {schema}.parked p WHERE p.event_id = t.epoch)),
    (SELECT count(*) FROM {schema}.parked WHERE reason <> 'dead' AND next_at <= clock_timestamp()),
    (SELECT coalesce(string_agg(DISTINCT t.key || ' ' || t.name, ', '), '') FROM (SELECT key, name FROM {schema}.timeout
        WHERE due_at <= clock_timestamp() LIMIT 5) t),
    -- due for a retry, or expired, or left by a transaction that applied as many as it may, or waiting for the beginning of a
    -- saga that has begun
    (SELECT count(*) FROM {schema}.saga_waiting w WHERE w.status = 'retry' AND w.next_at <= clock_timestamp()
        OR w.status = 'waiting' AND (w.expires_at <= clock_timestamp() OR w.retry_at > '-infinity')
        OR w.status = 'waiting' AND NOT w.begun AND EXISTS (SELECT FROM {schema}.saga s WHERE s.name = w.saga AND s.key = w.key))

-- name: NextDue
-- Returns the seconds until the next instant at which work falls due; null if there is none.
SELECT extract(epoch FROM least(
    (SELECT min(due_at) FROM {schema}.timeout WHERE due_at > clock_timestamp()),
    (SELECT min(next_at) FROM {schema}.parked WHERE reason <> 'dead' AND next_at > clock_timestamp() AND next_at < 'infinity'),
    (SELECT min(CASE WHEN status = 'retry' THEN next_at ELSE expires_at END) FROM {schema}.saga_waiting
        WHERE status IN ('waiting', 'retry') AND CASE WHEN status = 'retry' THEN next_at ELSE expires_at END > clock_timestamp())
) - clock_timestamp())::float8

-- name: Consumers
-- Lists the consumers that were registered in this schema.
SELECT name FROM {schema}.consumer

-- name: ParkedOf
-- Finds which of the events are parked, and by which consumers.
SELECT consumer, event_id FROM {schema}.parked WHERE event_id = ANY ($1::text[]::uuid[])
