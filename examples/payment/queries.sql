-- name: Request
INSERT INTO payments (order_id, amount_cents) VALUES ($1, $2);

-- name: Lock
SELECT * FROM payments WHERE order_id = $1 FOR UPDATE;

-- name: SetState
UPDATE payments SET state = $2 WHERE order_id = $1;

-- name: Get
SELECT * FROM payments WHERE order_id = $1;
