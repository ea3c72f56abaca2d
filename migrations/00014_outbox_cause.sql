-- +goose Up

-- What a handler handled when it published the event: the id of that event, and the handler's consumer. Null: no handler published it,
-- or an older version did. For `rocketflow why`.
ALTER TABLE outbox ADD COLUMN cause uuid, ADD COLUMN cause_consumer text;
CREATE INDEX outbox_cause_idx ON outbox (cause) WHERE cause IS NOT NULL;

-- +goose Down
ALTER TABLE outbox DROP COLUMN cause, DROP COLUMN cause_consumer;
