-- +goose Up

-- What the sweep knows, so that it never reads again what it has read: not while a transaction elsewhere is open for
-- long, nor while an event can't be sent. And how much is owed, for all processes to read.
ALTER TABLE outbox_sweep
    ADD COLUMN seen       xid8        NOT NULL DEFAULT '0', -- rows of older transactions are acked,
    ADD COLUMN again      xid8[]      NOT NULL DEFAULT '{}', -- but for those of these
    ADD COLUMN owed       bigint      NOT NULL DEFAULT 0, -- events without an ack
    ADD COLUMN oldest_at  timestamptz, -- when the oldest of them was recorded; null: nothing is owed
    ADD COLUMN counted    pg_snapshot NOT NULL DEFAULT pg_catalog.pg_current_snapshot(), -- what owed has counted
    ADD COLUMN recount_at timestamptz NOT NULL DEFAULT '-infinity'; -- when all may be counted again
UPDATE outbox_sweep SET seen = mark;

-- +goose Down
ALTER TABLE outbox_sweep
    DROP COLUMN seen, DROP COLUMN again, DROP COLUMN owed, DROP COLUMN oldest_at, DROP COLUMN counted, DROP COLUMN recount_at;
