-- +goose Up

-- What operators have changed: a row for each transaction of a change, written by that transaction. It has no bodies of events.
CREATE TABLE audit (
    id           bigint      NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    operation    uuid        NOT NULL, -- of the rows of one call
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor        text        NOT NULL, -- who, as the program that made the change says
    role         text        NOT NULL, -- the role of Postgres that made the change
    action       text        NOT NULL,
    denied       boolean     NOT NULL, -- an attempt that was refused: it has changed nothing
    reason       text        NOT NULL,
    filter       json        NOT NULL, -- what was selected
    changed      bigint      NOT NULL, -- how many things were changed
    ids          text[]      NOT NULL, -- the first of them
    names        text[]      NOT NULL, -- what the entry is found by: ids, also of what belongs to the things that were changed
    before       json,
    after        json
);
CREATE INDEX audit_actor_idx ON audit (actor, id);
CREATE INDEX audit_action_idx ON audit (action, id);
CREATE INDEX audit_operation_idx ON audit (operation);
CREATE INDEX audit_names_idx ON audit USING gin (names);
CREATE INDEX audit_denied_idx ON audit (actor, at) WHERE denied; -- bounds the attempts of an actor

-- What is paused: a consumer, one of its handlers, or the streams of a topic with one subject. Columns that don't belong to the kind
-- are empty.
CREATE TABLE pause (
    consumer  text        NOT NULL,
    kind      text        NOT NULL CHECK (kind IN ('consumer', 'handler', 'stream')),
    topic     text        NOT NULL,
    type      text        NOT NULL,
    subject   text        NOT NULL,
    paused_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor     text        NOT NULL,
    reason    text        NOT NULL,
    PRIMARY KEY (consumer, kind, topic, type, subject)
);

-- An event that came while its handler or its stream was paused.
ALTER TABLE parked DROP CONSTRAINT parked_reason_check;
ALTER TABLE parked ADD CONSTRAINT parked_reason_check CHECK (reason IN ('retry', 'gap', 'busy', 'unhandled', 'paused', 'dead'));
CREATE INDEX parked_paused_idx ON parked (consumer, topic, type, subject) WHERE reason = 'paused';

-- Dead letters and waiting events of a consumer, the longest parked first: pages of lists continue at any of them.
DROP INDEX parked_dead_idx;
CREATE INDEX parked_dead_idx ON parked (consumer, parked_at, sequence, event_id, source) WHERE reason = 'dead';
CREATE INDEX parked_waiting_idx ON parked (consumer, parked_at, sequence, event_id, source) WHERE reason <> 'dead';

-- The content of events as it was delivered, where an operator has edited a parked one. Kept as long as the inbox's rows, so that a row
-- doesn't say whether an event that is parked now, such as one that was delivered again after a reset, was edited: parked.edited does.
ALTER TABLE parked ADD COLUMN edited boolean NOT NULL DEFAULT false;
CREATE TABLE edited_event (
    consumer     text        NOT NULL,
    source       text        NOT NULL,
    event_id     uuid        NOT NULL,
    content_type text        NOT NULL,
    headers      jsonb,
    body         bytea       NOT NULL,
    edited_at    timestamptz NOT NULL DEFAULT clock_timestamp(), -- for the first time
    PRIMARY KEY (consumer, event_id, source)
);
CREATE INDEX edited_event_edited_at_idx ON edited_event (edited_at); -- for retention

-- How often the handler had failed before it handled the event, counted since an operator retried it last: of the event that moved the
-- position, and of the event in the inbox. Null: it had not, or an older version recorded it. For `rocketflow why`.
-- (Where an older version moves a position that this one has moved before, the number is that of the earlier event.)
ALTER TABLE position ADD COLUMN failed_attempts integer;
ALTER TABLE inbox ADD COLUMN failed_attempts integer;

-- +goose Down
ALTER TABLE inbox DROP COLUMN failed_attempts;
ALTER TABLE position DROP COLUMN failed_attempts;
DROP TABLE edited_event;
ALTER TABLE parked DROP COLUMN edited;
DROP INDEX parked_waiting_idx, parked_dead_idx;
CREATE INDEX parked_dead_idx ON parked (consumer, parked_at) WHERE reason = 'dead';
DROP INDEX parked_paused_idx;
UPDATE parked SET reason = 'retry', next_at = now() WHERE reason = 'paused';
ALTER TABLE parked DROP CONSTRAINT parked_reason_check;
ALTER TABLE parked ADD CONSTRAINT parked_reason_check CHECK (reason IN ('retry', 'gap', 'busy', 'unhandled', 'dead'));
DROP TABLE pause, audit;
