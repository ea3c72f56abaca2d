CREATE TABLE IF NOT EXISTS payments (
    order_id     uuid   NOT NULL PRIMARY KEY,
    amount_cents bigint NOT NULL CHECK (amount_cents > 0),
    state        text   NOT NULL DEFAULT 'requested' CHECK (state IN ('requested', 'captured', 'declined', 'refunded', 'void'))
);
