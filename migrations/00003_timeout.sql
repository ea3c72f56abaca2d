-- +goose Up

-- Armed timeouts. A row is deleted when the timeout fires or is disarmed. Each arm and each move draws a new epoch, which is the
-- id of the timeout's event: an event with another epoch is stale.
CREATE TABLE timeout (
    key           text        NOT NULL,
    name          text        NOT NULL,
    epoch         uuid        NOT NULL,
    due_at        timestamptz NOT NULL,
    handed_over   boolean     NOT NULL DEFAULT false, -- the broker holds a timer for this epoch
    -- When the sweep takes the row: to hand it over to the broker or, if it is overdue, to send its event. Taking the row moves
    -- this time on, so that no two processes take it at the same time.
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
CREATE INDEX timeout_due_idx ON timeout (due_at); -- for `rocketflow inspect`

-- +goose Down
DROP TABLE timeout;
