-- +goose Up

-- One row: the id of this database. The events that it records carry the id (rf_db), because a check-back about an event of
-- another database can't be decided by this one.
CREATE TABLE installation (
    id         uuid        NOT NULL PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO installation DEFAULT VALUES;

-- The last sequence of each stream, and the one before it. A publishing transaction locks the row until it commits, so sequences
-- are in commit order. There is no index but the key, so that updates are HOT.
CREATE TABLE stream (
    source   text   NOT NULL,
    topic    text   NOT NULL,
    subject  text   NOT NULL,
    previous bigint NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (source, topic, subject)
) WITH (fillfactor = 70);

-- The events that transactions published. A row is written once, in the business transaction. An event without an
-- acknowledgement is owed.
CREATE TABLE outbox (
    id           uuid        NOT NULL, -- UUIDv7
    source       text        NOT NULL,
    topic        text        NOT NULL,
    type         text        NOT NULL,
    subject      text        NOT NULL,
    sequence     bigint      NOT NULL, -- 0: not ordered
    previous     bigint      NOT NULL,
    recorded_at  timestamptz NOT NULL,
    content_type text        NOT NULL,
    headers      jsonb,
    body         bytea       NOT NULL,
    -- The rows of a long transaction become visible late: the sweep finds them by their transaction id.
    xid          xid8        NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE INDEX outbox_xid_idx ON outbox (xid);
CREATE INDEX outbox_stream_idx ON outbox (source, topic, subject, sequence) WHERE sequence > 0;
CREATE TABLE outbox_default PARTITION OF outbox DEFAULT;

-- The acknowledgements: events that the broker confirmed.
CREATE TABLE outbox_ack (
    id       uuid        NOT NULL,
    acked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE TABLE outbox_ack_default PARTITION OF outbox_ack DEFAULT;

-- One row: the sweep state. Every event of a transaction before mark is acknowledged.
CREATE TABLE outbox_sweep (
    only_row boolean     NOT NULL PRIMARY KEY DEFAULT true CHECK (only_row),
    mark     xid8        NOT NULL DEFAULT '0',
    swept_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO outbox_sweep DEFAULT VALUES;

-- +goose Down
DROP TABLE outbox_sweep, outbox_ack, outbox, stream, installation;
