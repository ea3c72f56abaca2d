package inbox_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// A stream of which nothing was handled is locked, too, when another process makes its row after it was looked for, and retention
// deletes that row before it is locked.
func TestLockHoldsARowThatRetentionDeletes(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pool, schema := testdb.Migrated(t)
	store := inbox.New(schema)
	billing := store.Consumer("billing")
	const before, after = 4711, 4712 // advisory locks at which the claim waits, before and after it has found the row
	if _, err := pool.Exec(ctx, `
		INSERT INTO consumer (name) VALUES ('billing');
		CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF current_setting('rocketflow.waits', true) = 'on' THEN
				PERFORM pg_advisory_xact_lock_shared(TG_ARGV[0]::bigint);
			END IF;
			RETURN NULL;
		END $$;
		CREATE TRIGGER before BEFORE INSERT ON position FOR EACH STATEMENT EXECUTE FUNCTION wait(4711);
		CREATE TRIGGER after AFTER INSERT ON position FOR EACH STATEMENT EXECUTE FUNCTION wait(4712)`); err != nil {
		t.Fatal(err)
	}
	conn, err := pool.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	step := func(sql string, args ...any) {
		t.Helper()
		if _, err := conn.Exec(ctx, sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	waits := func(lock int64) {
		t.Helper()
		poll.Until(t, "the claim waits", func() bool {
			var n int
			if err := conn.QueryRow(ctx, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = $1::bigint
				AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`, lock).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n == 1
		})
	}
	step("SELECT pg_advisory_lock($1)", before)
	step("SELECT pg_advisory_lock($1)", after)

	at := &inbox.LockedStream{Stream: rocketflow.Stream{Source: "shop", Topic: "orders", Subject: "order-1"}}
	locked := make(chan error, 1)
	go func() {
		locked <- pgx.BeginTxFunc(ctx, pool, inbox.ReadCommitted, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SET LOCAL rocketflow.waits = 'on'"); err != nil {
				return err
			}
			if err := billing.Lock(ctx, tx, []*inbox.LockedStream{at}, &pgx.Batch{}); err != nil {
				return err
			}
			var q pgx.Batch
			at.Last = 5
			billing.QueueAdvance(&q, []*inbox.LockedStream{at})
			return tx.SendBatch(ctx, &q).Close()
		})
	}()
	waits(before)
	step("INSERT INTO position (consumer, source, topic, subject, sequence) VALUES ('billing', 'shop', 'orders', 'order-1', 0)")
	step("SELECT pg_advisory_unlock($1)", before)
	waits(after)
	if err := store.ExpirePositions(ctx, pool, schema, 0); err != nil {
		t.Fatal(err)
	}
	step("SELECT pg_advisory_unlock($1)", after)
	if err := <-locked; err != nil {
		t.Fatal(err)
	}
	var last int64
	if err := pool.QueryRow(ctx, "SELECT sequence FROM position").Scan(&last); err != nil || last != 5 {
		t.Errorf("the position is %d, %v; want 5: the stream's first event was handled without a lock, and would be again", last, err)
	}
}

// A position that is not written where it should be rolls the transaction back.
func TestAdvanceNeedsItsRows(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	var q pgx.Batch
	inbox.New(schema).Consumer("billing").QueueAdvance(&q, []*inbox.LockedStream{{
		Stream: rocketflow.Stream{Source: "shop", Topic: "orders", Subject: "order-1"}, Position: inbox.Position{Last: 5},
	}})
	if err := pool.SendBatch(t.Context(), &q).Close(); err == nil {
		t.Error("a position without a row was advanced")
	}
}
