-- name: Insert
-- No row: there is an order of that id.
INSERT INTO orders (id, sku, quantity, amount_cents, placed_at, pay_by)
SELECT $1, $2, $3, $4, now, now + $5::interval
FROM clock_timestamp() AS now
ON CONFLICT (id) DO NOTHING
RETURNING *;

-- name: Reserve
-- No row: not enough of it.
UPDATE stock SET reserved = reserved + $2 WHERE sku = $1 AND on_hand - reserved >= $2;

-- name: Finish
-- A confirmed order takes its quantity off the stock, a closed one gives it back.
WITH finished AS (
    UPDATE orders SET state = $2, reason = $3, finished_at = clock_timestamp()
    WHERE id = $1 AND state = 'pending'
    RETURNING *
), released AS (
    UPDATE stock SET
        reserved = reserved - quantity,
        on_hand = on_hand - CASE finished.state WHEN 'confirmed' THEN quantity ELSE 0 END
    FROM finished WHERE stock.sku = finished.sku
)
SELECT * FROM finished;

-- name: Get
SELECT * FROM orders WHERE id = $1;

-- name: List
SELECT * FROM orders WHERE ($1::text = '' OR state = $1) AND id > $2 ORDER BY id LIMIT $3;

-- name: PutStock
-- No row: less than what is reserved.
INSERT INTO stock AS s (sku, on_hand) VALUES ($1, $2)
ON CONFLICT (sku) DO UPDATE SET on_hand = $2 WHERE s.reserved <= $2
RETURNING *;

-- name: GetStock
SELECT * FROM stock WHERE sku = $1;
