-- name: Clock
SELECT clock_timestamp();

-- name: Progress
SELECT count(*) FILTER (WHERE o.state = 'pending'), count(*) FILTER (WHERE o.state = 'confirmed'),
    count(*) FILTER (WHERE o.state = 'closed'), count(*) FILTER (WHERE p.state = 'refunded')
FROM {order}.orders o LEFT JOIN {payment}.payments p ON p.order_id = o.id
WHERE o.sku = ANY ($1);

-- name: Unfinished
-- Orders that are pending, or whose payment isn't what it comes to.
SELECT count(*)
FROM {order}.orders o LEFT JOIN {payment}.payments p ON p.order_id = o.id
WHERE o.id = ANY ($1::uuid[]) AND NOT coalesce(CASE o.state
    WHEN 'confirmed' THEN p.state = 'captured'
    WHEN 'closed' THEN p.state IN ('declined', 'refunded', 'void')
END, false);

-- name: Lost
-- Committed events without the effect that they must have at the other service.
SELECT count(*) FROM (
    SELECT id FROM {order_rocketflow}.outbox
    WHERE subject = ANY ($1) AND type IN ('order.placed', 'order.closed')
        AND id NOT IN (SELECT event_id FROM {payment}.effects)
    UNION ALL
    SELECT id FROM {payment_rocketflow}.outbox
    WHERE subject = ANY ($1) AND type IN ('payment.captured', 'payment.declined')
        AND id NOT IN (SELECT event_id FROM {order}.effects)
) lost;

-- name: Doubled
-- Effects beyond the first of an event.
SELECT coalesce(sum(n - 1), 0) FROM (
    SELECT count(*) AS n FROM {order}.effects WHERE order_id = ANY ($1) GROUP BY consumer, event_id
    UNION ALL
    SELECT count(*) FROM {payment}.effects WHERE order_id = ANY ($1) GROUP BY consumer, event_id
) effects;

-- name: Misordered
-- Effects of an aggregate that came after those of a later event. Timeouts have no order.
SELECT count(*) FROM (
    SELECT sequence < lag(sequence) OVER (PARTITION BY consumer, order_id ORDER BY n) AS wrong
    FROM {order}.effects WHERE order_id = ANY ($1) AND sequence > 0
    UNION ALL
    SELECT sequence < lag(sequence) OVER (PARTITION BY consumer, order_id ORDER BY n)
    FROM {payment}.effects WHERE order_id = ANY ($1) AND sequence > 0
) effects WHERE wrong;

-- name: Outcome
SELECT count(*), count(*) FILTER (WHERE o.state = 'confirmed'), count(*) FILTER (WHERE o.state = 'closed'),
    count(*) FILTER (WHERE p.state = 'refunded'),
    count(*) FILTER (WHERE o.reason = 'timeout'), count(*) FILTER (WHERE o.reason = 'declined'),
    count(*) FILTER (WHERE o.reason = 'cancelled'),
    count(*) FILTER (WHERE o.reason = 'timeout' AND o.finished_at < o.pay_by)
FROM {order}.orders o LEFT JOIN {payment}.payments p ON p.order_id = o.id
WHERE o.id = ANY ($1::uuid[]);

-- name: Lateness
-- How late timeouts fired, in microseconds.
SELECT (extract(epoch FROM finished_at - pay_by) * 1e6)::bigint
FROM {order}.orders WHERE id = ANY ($1::uuid[]) AND reason = 'timeout';

-- name: Latency
-- From the recording of an event to its effect, in microseconds.
SELECT (extract(epoch FROM handled_at - recorded_at) * 1e6)::bigint FROM (
    SELECT handled_at, recorded_at FROM {order}.effects WHERE order_id = ANY ($1) AND sequence > 0
    UNION ALL
    SELECT handled_at, recorded_at FROM {payment}.effects WHERE order_id = ANY ($1) AND sequence > 0
) effects;

-- name: ArmedTimeouts
SELECT count(*) FROM {order_rocketflow}.timeout WHERE key IN (SELECT 'order/' || id FROM unnest($1::text[]) AS id);

-- name: EventsAgainstRows
-- Orders whose events don't match their rows: placed once, finished once, and the same amounts.
SELECT count(*) FROM (
    SELECT o.id, o.state, p.state AS paid,
        (SELECT array_agg(e.type ORDER BY e.sequence) FROM {order_rocketflow}.outbox e WHERE e.subject = o.id::text) AS events,
        (SELECT array_agg(e.type ORDER BY e.sequence) FROM {payment_rocketflow}.outbox e WHERE e.subject = o.id::text) AS payments
    FROM {order}.orders o LEFT JOIN {payment}.payments p ON p.order_id = o.id
    WHERE o.id = ANY ($1::uuid[])
) stories
WHERE events IS DISTINCT FROM ARRAY ['order.placed', 'order.' || state]
    OR payments IS DISTINCT FROM CASE paid
        WHEN 'captured' THEN ARRAY ['payment.captured']
        WHEN 'declined' THEN ARRAY ['payment.declined']
        WHEN 'refunded' THEN ARRAY ['payment.captured', 'payment.refunded']
    END;

-- name: Stock
-- Articles of which there is not what there should be: $2 in the beginning.
SELECT count(*) FROM {order}.stock s, LATERAL (
    SELECT coalesce(sum(quantity) FILTER (WHERE state = 'confirmed'), 0) AS sold,
        coalesce(sum(quantity) FILTER (WHERE state = 'pending'), 0) AS pending
    FROM {order}.orders o WHERE o.sku = s.sku
) o
WHERE sku = ANY ($1) AND (on_hand <> $2 - sold OR reserved <> pending);

-- name: Money
-- What was captured and not given back, less what the confirmed orders cost.
SELECT coalesce(sum(amount) FILTER (WHERE type = 'payment.captured'), 0) - coalesce(sum(amount) FILTER (WHERE type = 'payment.refunded'), 0)
    - (SELECT coalesce(sum(amount_cents), 0) FROM {order}.orders WHERE id = ANY ($1::uuid[]) AND state = 'confirmed')
FROM (
    SELECT type, (convert_from(body, 'UTF8')::jsonb ->> 'amount_cents')::bigint AS amount
    FROM {payment_rocketflow}.outbox WHERE subject = ANY ($1)
) flows;
