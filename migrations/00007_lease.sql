-- +goose Up

-- Leases: which process does a job that one process at a time does, and until when, by this database's clock. The next holder
-- overwrites the row.
CREATE TABLE lease (
    name       text        NOT NULL PRIMARY KEY,
    holder     uuid        NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- The sweep reads pages by (xid, id), so that it can continue within the rows of one transaction.
CREATE INDEX outbox_xid_id_idx ON outbox (xid, id);
DROP INDEX outbox_xid_idx;

-- Owed events that the broker rejected. The sweep skips them; they are tried again at next_at.
CREATE TABLE outbox_rejected (
    id          uuid        NOT NULL PRIMARY KEY, -- of a row of outbox
    topic       text        NOT NULL,
    reason      text        NOT NULL,
    attempts    integer     NOT NULL DEFAULT 1,
    rejected_at timestamptz NOT NULL DEFAULT clock_timestamp(), -- the first time
    next_at     timestamptz NOT NULL -- infinity: when its topic is accepted again
);
CREATE INDEX outbox_rejected_next_at_idx ON outbox_rejected (next_at) WHERE next_at < 'infinity';
CREATE INDEX outbox_rejected_topic_idx ON outbox_rejected (topic, id);

-- Topics of which the broker rejects all events, because the topic or a right is missing. One event of each is tried at next_at.
CREATE TABLE outbox_rejected_topic (
    topic       text        NOT NULL PRIMARY KEY,
    reason      text        NOT NULL,
    attempts    integer     NOT NULL DEFAULT 1,
    rejected_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    next_at     timestamptz NOT NULL
);

-- Owed events that operators discarded, kept for outbox.Config.Retention.
CREATE TABLE outbox_discarded (
    id           uuid        NOT NULL PRIMARY KEY,
    source       text        NOT NULL,
    topic        text        NOT NULL,
    type         text        NOT NULL,
    subject      text        NOT NULL,
    sequence     bigint      NOT NULL,
    previous     bigint      NOT NULL,
    recorded_at  timestamptz NOT NULL,
    content_type text        NOT NULL,
    headers      jsonb,
    body         bytea       NOT NULL,
    reason       text        NOT NULL,
    discarded_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The rejected events by topic, which all processes read: an array of {topic, events, oldest, reason}.
ALTER TABLE outbox_sweep ADD COLUMN rejected jsonb NOT NULL DEFAULT '[]';

-- +goose Down
ALTER TABLE outbox_sweep DROP COLUMN rejected;
DROP TABLE outbox_discarded, outbox_rejected_topic, outbox_rejected;
CREATE INDEX outbox_xid_idx ON outbox (xid);
DROP INDEX outbox_xid_id_idx;
DROP TABLE lease;
