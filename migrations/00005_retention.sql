-- +goose Up

-- One row: the state of the retention. It rarely changes, so a publishing transaction reads it at almost no cost.
CREATE TABLE outbox_retention (
    only_row     boolean     NOT NULL PRIMARY KEY DEFAULT true CHECK (only_row),
    -- The highest sequence of an idle stream whose row was deleted. A stream that begins again continues above it, also if the
    -- clock was set back.
    stream_floor bigint      NOT NULL DEFAULT 0,
    -- When a process last began to delete what is too old. One process per hour does.
    begun_at     timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO outbox_retention DEFAULT VALUES;

-- +goose Down
DROP TABLE outbox_retention;
