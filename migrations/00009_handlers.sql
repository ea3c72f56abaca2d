-- +goose Up

-- The retention of each consumer. Whichever process deletes goes by the longest of them.
ALTER TABLE consumer
    ADD COLUMN inbox_retention    interval NOT NULL DEFAULT interval '7 days',
    ADD COLUMN position_retention interval NOT NULL DEFAULT interval '30 days';

-- The types of events that a consumer has handlers for, in any of its processes. A process without the handler leaves the event
-- to a process that has it.
CREATE TABLE consumer_handler (
    consumer      text        NOT NULL,
    topic         text        NOT NULL,
    type          text        NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, topic, type)
);

-- Events that were recorded before begin_at are not handled.
ALTER TABLE consumer_topic ADD COLUMN begin_at timestamptz NOT NULL DEFAULT '-infinity';

-- Pairs of sequences: the events between the two of a pair, exclusively, were skipped. One that arrives later is no duplicate.
ALTER TABLE position ADD COLUMN skipped bigint[] NOT NULL DEFAULT '{}';
UPDATE position SET skipped = ARRAY[skipped_after, skipped_before] WHERE skipped_before > 0;
ALTER TABLE position DROP COLUMN skipped_after, DROP COLUMN skipped_before;

-- Source and id identify an event. The digest shows whether another event with the same identity has another content.
ALTER TABLE inbox ADD COLUMN source text NOT NULL DEFAULT '', ADD COLUMN digest bigint NOT NULL DEFAULT 0;
ALTER TABLE inbox DROP CONSTRAINT inbox_pkey;
ALTER TABLE inbox ADD PRIMARY KEY (event_id, source, consumer);

ALTER TABLE parked DROP CONSTRAINT parked_pkey;
ALTER TABLE parked ADD PRIMARY KEY (consumer, event_id, source);
ALTER TABLE parked DROP CONSTRAINT parked_reason_check;
ALTER TABLE parked ADD CONSTRAINT parked_reason_check CHECK (reason IN ('retry', 'gap', 'busy', 'unhandled', 'dead'));
CREATE INDEX parked_unhandled_idx ON parked (consumer, topic, type) WHERE reason = 'unhandled';
CREATE INDEX parked_link_idx ON parked (consumer, source, topic, subject, previous) WHERE sequence > 0;

-- +goose Down
DROP INDEX parked_link_idx, parked_unhandled_idx;
DELETE FROM parked WHERE reason IN ('busy', 'unhandled');
ALTER TABLE parked DROP CONSTRAINT parked_reason_check;
ALTER TABLE parked ADD CONSTRAINT parked_reason_check CHECK (reason IN ('retry', 'gap', 'dead'));
ALTER TABLE parked DROP CONSTRAINT parked_pkey;
DELETE FROM parked p USING parked q WHERE p.consumer = q.consumer AND p.event_id = q.event_id AND p.source > q.source;
ALTER TABLE parked ADD PRIMARY KEY (consumer, event_id);
ALTER TABLE inbox DROP CONSTRAINT inbox_pkey;
DELETE FROM inbox i USING inbox j WHERE i.consumer = j.consumer AND i.event_id = j.event_id AND i.source > j.source;
ALTER TABLE inbox ADD PRIMARY KEY (event_id, consumer);
ALTER TABLE inbox DROP COLUMN source, DROP COLUMN digest;
ALTER TABLE position ADD COLUMN skipped_after bigint NOT NULL DEFAULT 0, ADD COLUMN skipped_before bigint NOT NULL DEFAULT 0;
UPDATE position SET skipped_after = skipped[1], skipped_before = skipped[pg_catalog.cardinality(skipped)] WHERE pg_catalog.cardinality(skipped) > 1;
ALTER TABLE position DROP COLUMN skipped;
ALTER TABLE consumer_topic DROP COLUMN begin_at;
DROP TABLE consumer_handler;
ALTER TABLE consumer DROP COLUMN inbox_retention, DROP COLUMN position_retention;
