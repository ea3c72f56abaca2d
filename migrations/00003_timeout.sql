-- +goose Up

-- Armed timeouts; a row goes when it fires or is disarmed. epoch is drawn anew by each arm and move, and is the id of
-- the timeout's event: what carries another epoch is stale.
CREATE TABLE timeout (
    key           text        NOT NULL,
    name          text        NOT NULL,
    epoch         uuid        NOT NULL,
    due_at        timestamptz NOT NULL,
    handed_over   boolean     NOT NULL DEFAULT false, -- the broker holds a timer for this epoch
    -- When the sweep looks at the row: to hand it over, or, once it is overdue, to send what the broker lost. Taking
    -- the row moves it on, so that no two processes take it for the same reason.
    next_sweep_at timestamptz NOT NULL,
    armed_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- the event
    source        text        NOT NULL,
    topic         text        NOT NULL,
    type          text        NOT NULL,
    subject       text        NOT NULL,
    content_type  text        NOT NULL,
    headers       jsonb,
    body          bytea       NOT NULL,
    PRIMARY KEY (key, name)
);
CREATE INDEX timeout_sweep_idx ON timeout (next_sweep_at);
CREATE INDEX timeout_due_idx ON timeout (due_at); -- for people: what is due next, what is overdue

-- +goose Down
DROP TABLE timeout;
