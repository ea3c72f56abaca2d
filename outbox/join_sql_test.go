package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/outbox"
)

// A transaction of database/sql publishes if and only if it commits, by Commit or by its owner.
func TestJoinedSQLTransactionsPublish(t *testing.T) {
	t.Parallel()
	ok := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		want []string
		run  func(t *testing.T, ctx context.Context, b *bundle, tx *sql.Tx)
	}{
		"committed": {[]string{"a", "b"}, func(t *testing.T, ctx context.Context, b *bundle, tx *sql.Tx) {
			joined := b.outbox.JoinSQL(tx)
			ok(t, joined.Publish(ctx, credited{"a", 1}))
			ok(t, joined.Publish(ctx, credited{"b", 1}, rocketflow.Event{Topic: "accounts", Type: "t", ContentType: "text/plain", Body: []byte{0, 0xff}, Headers: map[string]string{"k": "v"}}))
			ok(t, joined.Commit(ctx))
			if err := joined.Publish(ctx, credited{"x", 1}); !errors.Is(err, sql.ErrTxDone) {
				t.Errorf("publish after the end: %v", err)
			}
			if err := joined.Commit(ctx); !errors.Is(err, sql.ErrTxDone) {
				t.Errorf("commit after the end: %v", err)
			}
		}},
		"rolled back": {nil, func(t *testing.T, ctx context.Context, b *bundle, tx *sql.Tx) {
			joined := b.outbox.JoinSQL(tx)
			ok(t, joined.Publish(ctx, credited{"a", 1}))
			ok(t, tx.Rollback())
			if err := joined.Publish(ctx, credited{"x", 1}); !errors.Is(err, sql.ErrTxDone) {
				t.Errorf("publish after the end: %v", err)
			}
			joined.Committed(ctx) // which is not true
		}},
		"committed by its owner, who calls Committed": {[]string{"a"}, func(t *testing.T, ctx context.Context, b *bundle, tx *sql.Tx) {
			joined := b.outbox.JoinSQL(tx)
			ok(t, joined.Publish(ctx, credited{"a", 1}))
			ok(t, tx.Commit())
			joined.Committed(ctx)
		}},
		"committed by its owner": {[]string{"a"}, func(t *testing.T, ctx context.Context, b *bundle, tx *sql.Tx) {
			ok(t, b.outbox.JoinSQL(tx).Publish(ctx, credited{"a", 1}))
			ok(t, tx.Commit())
		}},
		"Committed is called too early": {nil, func(t *testing.T, ctx context.Context, b *bundle, tx *sql.Tx) {
			joined := b.outbox.JoinSQL(tx)
			ok(t, joined.Publish(ctx, credited{"a", 1}))
			joined.Committed(ctx)
			ok(t, tx.Rollback())
		}},
		"rolled back to a savepoint": {[]string{"a", "c"}, func(t *testing.T, ctx context.Context, b *bundle, tx *sql.Tx) {
			joined := b.outbox.JoinSQL(tx)
			ok(t, joined.Publish(ctx, credited{"a", 1}))
			_, err := tx.ExecContext(ctx, "SAVEPOINT s")
			ok(t, err)
			ok(t, joined.Publish(ctx, credited{"b", 1}))
			_, err = tx.ExecContext(ctx, "ROLLBACK TO s")
			ok(t, err)
			ok(t, joined.Publish(ctx, credited{"c", 1}))
			ok(t, joined.Commit(ctx))
		}},
		"refused": {nil, func(t *testing.T, ctx context.Context, b *bundle, tx *sql.Tx) {
			joined := b.outbox.JoinSQL(tx)
			ok(t, joined.Publish(ctx, credited{"a", 1}))
			if err := joined.Publish(ctx, rocketflow.Event{Topic: "accounts"}); err == nil {
				t.Error("published without a type")
			}
			_, _ = tx.ExecContext(ctx, "nonsense")
			if err := joined.Commit(ctx); err == nil {
				t.Error("committed")
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			b := setup(t, nil)
			db := stdlib.OpenDBFromPool(b.pool)
			t.Cleanup(func() { _ = db.Close() })
			tx, err := db.BeginTx(ctx, nil)
			ok(t, err)
			c.run(t, ctx, b, tx)
			ok(t, b.credit(ctx, "last", 1))
			count := len(c.want) + 1
			if name == "committed" {
				count++
			}
			poll.Until(t, "the events", func() bool { return len(b.broker.events()) >= count })
			var out []string
			for _, e := range b.broker.events() {
				if e.Subject != "last" && e.Subject != "" {
					out = append(out, e.Subject)
				}
			}
			slices.Sort(out)
			if !slices.Equal(out, c.want) {
				t.Errorf("out are %q, want %q", out, c.want)
			}
			if n := b.count(t, "outbox"); n != count {
				t.Errorf("%d rows, want %d", n, count)
			}
		})
	}
}

// What is committed through an SQLTx, or reported by Committed, doesn't wait for the sweep.
func TestJoinedSQLEventsDontWaitForTheSweep(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := setup(t, func(c *outbox.Config) { c.SweepGrace = time.Hour })
	db := stdlib.OpenDBFromPool(b.pool)
	t.Cleanup(func() { _ = db.Close() })
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	joined := b.outbox.JoinSQL(tx)
	if err := joined.Publish(ctx, credited{"a", 1}); err != nil {
		t.Fatal(err)
	}
	if err := joined.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the event", func() bool { return len(b.broker.events()) == 1 })
}
