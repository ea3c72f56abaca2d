-- +goose Up

-- The one service whose events this schema records, set by its first start.
ALTER TABLE installation
    ADD COLUMN source     text,
    ADD COLUMN claimed_at timestamptz;

-- +goose Down
ALTER TABLE installation DROP COLUMN source, DROP COLUMN claimed_at;
