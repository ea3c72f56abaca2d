CREATE TABLE IF NOT EXISTS stock (
    sku      text   NOT NULL PRIMARY KEY,
    on_hand  bigint NOT NULL,
    reserved bigint NOT NULL DEFAULT 0, -- for pending orders
    CHECK (reserved BETWEEN 0 AND on_hand)
);

CREATE TABLE IF NOT EXISTS orders (
    id           uuid        NOT NULL PRIMARY KEY,
    sku          text        NOT NULL,
    quantity     bigint      NOT NULL CHECK (quantity > 0),
    amount_cents bigint      NOT NULL CHECK (amount_cents > 0),
    state        text        NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'confirmed', 'closed')),
    reason       text        NOT NULL DEFAULT '' CHECK (reason IN ('', 'timeout', 'declined', 'cancelled')),
    placed_at    timestamptz NOT NULL,
    pay_by       timestamptz NOT NULL,
    finished_at  timestamptz,
    CHECK ((state = 'pending') = (finished_at IS NULL)),
    CHECK ((state = 'closed') = (reason <> ''))
);
CREATE INDEX IF NOT EXISTS orders_state_idx ON orders (state, id);
