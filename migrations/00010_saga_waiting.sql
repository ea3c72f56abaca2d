-- +goose Up

ALTER TABLE saga
    -- Whether saga_waiting may hold events for the saga. A transaction that adds one sets it under the row's lock, so that a
    -- transaction with an older snapshot gets a serialization error and doesn't overlook the event.
    ADD COLUMN waiting boolean NOT NULL DEFAULT false;
CREATE INDEX saga_running_idx ON saga (name, version, state) WHERE finished_at IS NULL; -- for the check at start

-- Waiting events: when they came, their saga had not begun, or only a later state accepts them. A row is deleted when its event is
-- applied, or when no reachable state accepts it any more.
CREATE TABLE saga_waiting (
    id           bigint      NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- for one saga in order of arrival
    saga         text        NOT NULL,
    key          text        NOT NULL,
    -- waiting: for a state that accepts the event. retry: its function failed and is tried again. failed: it is not tried again.
    -- expired: no state accepted it in time. An operator retries or discards failed and expired events.
    status       text        NOT NULL DEFAULT 'waiting' CHECK (status IN ('waiting', 'retry', 'failed', 'expired')),
    begun        boolean     NOT NULL,           -- false: the saga had not begun
    state        text        NOT NULL,           -- of the saga when the event came; empty: it had not begun
    attempts     integer     NOT NULL DEFAULT 0, -- failed attempts
    next_at      timestamptz NOT NULL,           -- when an engine takes the row on its own; infinity: never
    retry_at     timestamptz NOT NULL DEFAULT '-infinity', -- the earliest time of the next attempt
    expires_at   timestamptz NOT NULL,
    last_error   text        NOT NULL DEFAULT '',
    arrived_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at   timestamptz NOT NULL DEFAULT clock_timestamp(), -- when status or attempts changed
    -- the event
    event_id     uuid        NOT NULL,
    source       text        NOT NULL,
    topic        text        NOT NULL,
    type         text        NOT NULL,
    subject      text        NOT NULL,
    sequence     bigint      NOT NULL,
    previous     bigint      NOT NULL,
    recorded_at  timestamptz NOT NULL,
    database     text        NOT NULL,
    content_type text        NOT NULL,
    headers      jsonb,
    body         bytea       NOT NULL
);
CREATE INDEX saga_waiting_saga_idx ON saga_waiting (saga, key, id);
CREATE INDEX saga_waiting_key_idx ON saga_waiting (key); -- for `rocketflow inspect`
CREATE INDEX saga_waiting_next_idx ON saga_waiting (saga, next_at) WHERE status IN ('waiting', 'retry');
CREATE INDEX saga_waiting_kept_idx ON saga_waiting (changed_at) WHERE status IN ('failed', 'expired'); -- for retention

ALTER TABLE timeout
    ADD COLUMN sends    integer NOT NULL DEFAULT 0, -- how often the sweep sent the event because the timeout was overdue
    ADD COLUMN stuck_at timestamptz;                -- when the timeout was reported as stuck
CREATE INDEX timeout_stuck_idx ON timeout (due_at) WHERE stuck_at IS NOT NULL;

-- +goose Down
ALTER TABLE timeout DROP COLUMN sends, DROP COLUMN stuck_at;
DROP TABLE saga_waiting;
DROP INDEX saga_running_idx;
ALTER TABLE saga DROP COLUMN waiting;
