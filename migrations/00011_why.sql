-- +goose Up

-- How the event reached the broker: 0 not recorded (an older version), 1 half message, 2 relay, 3 sweep, 4 half message that was
-- committed by a check-back. For `rocketflow why`.
ALTER TABLE outbox_ack ADD COLUMN path smallint NOT NULL DEFAULT 0;

-- When the position last moved, and how long the turn took that moved it, in milliseconds. Ordered events have no other record of
-- the time at which they were handled. Null: an older version moved it. No index has the columns, so updates stay HOT.
ALTER TABLE position ADD COLUMN handled_at timestamptz, ADD COLUMN took_ms integer;

-- The consumer's group at the broker, which may not follow from its name: for questions about what it hasn't read yet. Empty: an
-- older version registered the consumer.
ALTER TABLE consumer ADD COLUMN group_name text NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE consumer DROP COLUMN group_name;
ALTER TABLE position DROP COLUMN handled_at, DROP COLUMN took_ms;
ALTER TABLE outbox_ack DROP COLUMN path;
