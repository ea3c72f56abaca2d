-- +goose Up

-- The sweep state, so that the sweep reads no row twice, also while a transaction is open for long or an event can't be sent;
-- and the backlog, which all processes read.
ALTER TABLE outbox_sweep
    ADD COLUMN seen       xid8        NOT NULL DEFAULT '0', -- the events of older transactions are acknowledged,
    ADD COLUMN again      xid8[]      NOT NULL DEFAULT '{}', -- except those of these transactions
    ADD COLUMN owed       bigint      NOT NULL DEFAULT 0, -- events without an acknowledgement
    ADD COLUMN oldest_at  timestamptz, -- when the oldest of them was recorded; null: nothing is owed
    ADD COLUMN counted    pg_snapshot NOT NULL DEFAULT pg_catalog.pg_current_snapshot(), -- the snapshot of the count in owed
    ADD COLUMN recount_at timestamptz NOT NULL DEFAULT '-infinity'; -- when the whole backlog may be counted again
UPDATE outbox_sweep SET seen = mark;

-- +goose Down
ALTER TABLE outbox_sweep
    DROP COLUMN seen, DROP COLUMN again, DROP COLUMN owed, DROP COLUMN oldest_at, DROP COLUMN counted, DROP COLUMN recount_at;
