-- +goose Up

-- Armed timeouts; a row goes when it fires or is disarmed. epoch is drawn anew by each arm and move, and is the id of
-- the timeout's event: what carries another epoch is stale.
CREATE TABLE timeout (
    key          text        NOT NULL,
    name         text        NOT NULL,
    epoch        uuid        NOT NULL,
    due_at       timestamptz NOT NULL,
    handed_over  boolean     NOT NULL DEFAULT false, -- the broker holds a timer for this epoch
    armed_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- the event
    source       text        NOT NULL,
    topic        text        NOT NULL,
    type         text        NOT NULL,
    subject      text        NOT NULL,
    content_type text        NOT NULL,
    headers      jsonb,
    body         bytea       NOT NULL,
    PRIMARY KEY (key, name)
);
CREATE INDEX timeout_due_idx ON timeout (due_at);
CREATE INDEX timeout_not_handed_over_idx ON timeout (due_at) WHERE NOT handed_over;

-- +goose Down
DROP TABLE timeout;
