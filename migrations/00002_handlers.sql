-- +goose Up

-- Consumers, with the time of their first start.
CREATE TABLE consumer (
    name    text        NOT NULL PRIMARY KEY,
    born_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- When a consumer first read a topic: it can't wait for older events.
CREATE TABLE consumer_topic (
    consumer text        NOT NULL,
    topic    text        NOT NULL,
    born_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, topic)
);

-- The position of a consumer in each stream. It is also the inbox of ordered events: an event that is not above it was handled.
CREATE TABLE position (
    consumer text   NOT NULL,
    source   text   NOT NULL,
    topic    text   NOT NULL,
    subject  text   NOT NULL,
    sequence bigint NOT NULL,
    -- The events between these two, exclusively, were skipped: a later event was handled without its predecessor. One of them
    -- that arrives later is no duplicate.
    skipped_after  bigint NOT NULL DEFAULT 0,
    skipped_before bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (consumer, source, topic, subject)
) WITH (fillfactor = 70);

-- The inbox of unordered events.
CREATE TABLE inbox (
    event_id   uuid        NOT NULL,
    consumer   text        NOT NULL,
    handled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (event_id, consumer)
) PARTITION BY RANGE (event_id);
CREATE TABLE inbox_default PARTITION OF inbox DEFAULT;
-- Rows whose id is no UUIDv7, or of a day without a partition. They are deleted by age.
CREATE INDEX inbox_default_handled_at_idx ON inbox_default (handled_at);

-- Parked events: they wait for their next attempt or for their predecessor, or are dead letters.
CREATE TABLE parked (
    consumer     text        NOT NULL,
    event_id     uuid        NOT NULL,
    reason       text        NOT NULL CHECK (reason IN ('retry', 'gap', 'dead')),
    attempts     integer     NOT NULL DEFAULT 0, -- failed attempts
    next_at      timestamptz NOT NULL,           -- of the next attempt; 'infinity' for dead letters
    last_error   text        NOT NULL DEFAULT '',
    parked_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- the event
    source       text        NOT NULL,
    topic        text        NOT NULL,
    type         text        NOT NULL,
    subject      text        NOT NULL,
    sequence     bigint      NOT NULL,
    previous     bigint      NOT NULL,
    recorded_at  timestamptz NOT NULL,
    database     text        NOT NULL,
    timeout_key  text        NOT NULL,
    timeout_name text        NOT NULL,
    content_type text        NOT NULL,
    headers      jsonb,
    body         bytea       NOT NULL,
    PRIMARY KEY (consumer, event_id)
);
CREATE INDEX parked_due_idx ON parked (consumer, next_at) WHERE reason <> 'dead';
CREATE INDEX parked_stream_idx ON parked (consumer, source, topic, subject, sequence);
CREATE INDEX parked_dead_idx ON parked (consumer, parked_at) WHERE reason = 'dead';

-- +goose Down
DROP TABLE parked, inbox, position, consumer_topic, consumer;
