-- +goose Up

-- What became of timeouts: a row for each epoch that has ended, written by the statement that ended it. For `rocketflow why`.
CREATE TABLE timeout_history (
    -- The time of the end as the beginning of a UUIDv7: the bounds of partitions are such ids. (The epoch tells when the timeout was
    -- armed, which may be years before.)
    ended       uuid        NOT NULL DEFAULT pg_catalog.concat(pg_catalog.lpad(pg_catalog.to_hex((extract(epoch FROM clock_timestamp()) * 1000::numeric)::bigint), 12, '0'), '70008000000000000000')::uuid,
    ended_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    key         text        NOT NULL,
    name        text        NOT NULL,
    epoch       uuid        NOT NULL,
    armed_at    timestamptz NOT NULL,
    due_at      timestamptz NOT NULL,
    topic       text        NOT NULL,
    type        text        NOT NULL,
    subject     text        NOT NULL,
    -- fired: its event was handled. moved: to another time. replaced: it was armed again, with another event or for another time.
    -- disarmed. settled: its event was settled without having been handled, as by the discard of its dead letter.
    outcome     text        NOT NULL CHECK (outcome IN ('fired', 'moved', 'replaced', 'disarmed', 'settled')),
    by_operator boolean     NOT NULL DEFAULT false, -- an operator moved or disarmed it
    consumer    text        NOT NULL DEFAULT '',    -- of the handler that it fired in, or of the event that was settled
    next_epoch  uuid,                               -- that of the timeout's row from then on; null: no timeout was armed any more
    PRIMARY KEY (epoch, ended)
) PARTITION BY RANGE (ended);
CREATE INDEX timeout_history_key_idx ON timeout_history (key, ended);
CREATE INDEX timeout_history_subject_idx ON timeout_history (subject, ended) WHERE subject <> key AND subject <> ''; -- as of the deadlines of sagas
CREATE TABLE timeout_history_default PARTITION OF timeout_history DEFAULT;

-- The partitions of today and tomorrow: processes of the version before make none, and in the default partition the rows of operators'
-- changes would keep those of the next version from making that of the day.
SELECT {schema}.make_partition('timeout_history', 'timeout_history_p' || pg_catalog.to_char(d.day, 'YYYYMMDD'),
    (pg_catalog.lpad(pg_catalog.to_hex((extract(epoch FROM d.day) * 1000::numeric)::bigint), 12, '0') || '00000000000000000000')::uuid,
    (pg_catalog.lpad(pg_catalog.to_hex((extract(epoch FROM d.day + interval '1 day') * 1000::numeric)::bigint), 12, '0') || '00000000000000000000')::uuid)
FROM (
    SELECT pg_catalog.date_trunc('day', now() AT TIME ZONE 'UTC') + ahead AS day FROM pg_catalog.unnest('{0 days,1 day}'::interval[]) AS a (ahead)
) d;

-- The epoch that a row had before its present one. Only the statement that changes the epoch reads them, to write the history: before
-- PostgreSQL 18, RETURNING has no old values, and a row that an INSERT ... ON CONFLICT finds may be younger than its snapshot.
ALTER TABLE timeout
    ADD COLUMN replaced_epoch    uuid,
    ADD COLUMN replaced_armed_at timestamptz,
    ADD COLUMN replaced_due_at   timestamptz,
    ADD COLUMN replaced_topic    text,
    ADD COLUMN replaced_type     text,
    ADD COLUMN replaced_subject  text;

-- +goose Down
ALTER TABLE timeout
    DROP COLUMN replaced_epoch, DROP COLUMN replaced_armed_at, DROP COLUMN replaced_due_at, DROP COLUMN replaced_topic, DROP COLUMN replaced_type,
    DROP COLUMN replaced_subject;
DROP TABLE timeout_history;
