-- +goose Up

-- Sagas, running and finished.
CREATE TABLE saga (
    name        text        NOT NULL,
    key         text        NOT NULL,
    version     integer     NOT NULL, -- of the definition that the saga began on
    state       text        NOT NULL,
    data        jsonb       NOT NULL,
    revision    bigint      NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    PRIMARY KEY (name, key)
);
CREATE INDEX saga_key_idx ON saga (key);
CREATE INDEX saga_finished_at_idx ON saga (finished_at) WHERE finished_at IS NOT NULL; -- for retention

-- One row for each transition, never updated.
CREATE TABLE saga_history (
    name       text        NOT NULL,
    key        text        NOT NULL,
    revision   bigint      NOT NULL,
    from_state text        NOT NULL, -- empty: the beginning
    to_state   text        NOT NULL,
    cause_type text        NOT NULL, -- the event's type
    cause_id   uuid,                 -- the event's id; null: the application called Begin or Apply
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (name, key, revision)
);

-- +goose Down
DROP TABLE saga_history, saga;
