-- +goose Up

-- Written seldom, so that reading it costs a publishing transaction next to nothing.
CREATE TABLE outbox_retention (
    only_row     boolean     NOT NULL PRIMARY KEY DEFAULT true CHECK (only_row),
    -- The highest sequence of a stream whose row was deleted because it was idle. What begins anew goes on above it, also
    -- if the clock was set back meanwhile.
    stream_floor bigint      NOT NULL DEFAULT 0,
    -- When a process last began to look for what is too old: one an hour is enough.
    begun_at     timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO outbox_retention DEFAULT VALUES;

-- +goose Down
DROP TABLE outbox_retention;
