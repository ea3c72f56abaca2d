package outbox_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/outbox"
)

// logged is a log that tests read.
type logged struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *logged) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.all.String(), what)
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// After its end a transaction, or a savepoint, returns ErrTxClosed from each method, and nothing is written.
func TestEndedTransactionsReturnErrTxClosed(t *testing.T) {
	t.Parallel()
	begin := func(b *bundle, ctx context.Context, t *testing.T) rocketflow.Tx {
		tx, err := b.outbox.Begin(ctx, pgx.TxOptions{})
		if err == nil {
			err = tx.Publish(ctx, credited{"first", 1})
		}
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}
	savepoint := func(ctx context.Context, t *testing.T, tx pgx.Tx) rocketflow.Tx {
		inner, err := tx.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return inner.(rocketflow.Tx)
	}
	ok := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, ended := range map[string]func(ctx context.Context, t *testing.T, b *bundle, check func(rocketflow.Tx)){
		"after Commit": func(ctx context.Context, t *testing.T, b *bundle, check func(rocketflow.Tx)) {
			tx := begin(b, ctx, t)
			ok(t, tx.Commit(ctx))
			check(tx)
		},
		"after Rollback": func(ctx context.Context, t *testing.T, b *bundle, check func(rocketflow.Tx)) {
			tx := begin(b, ctx, t)
			ok(t, tx.Rollback(ctx))
			check(tx)
		},
		"after Rollback of nothing": func(ctx context.Context, t *testing.T, b *bundle, check func(rocketflow.Tx)) {
			tx, err := b.outbox.Begin(ctx, pgx.TxOptions{})
			ok(t, err)
			ok(t, tx.Rollback(ctx))
			check(tx)
		},
		"after a failed Commit": func(ctx context.Context, t *testing.T, b *bundle, check func(rocketflow.Tx)) {
			tx := begin(b, ctx, t)
			_, _ = tx.Exec(ctx, "nonsense")
			if err := tx.Commit(ctx); err == nil {
				t.Fatal("committed")
			}
			check(tx)
		},
		"after Within": func(ctx context.Context, t *testing.T, b *bundle, check func(rocketflow.Tx)) {
			var kept rocketflow.Tx
			ok(t, b.outbox.Within(ctx, func(_ context.Context, tx rocketflow.Tx) error { kept = tx; return nil }))
			check(kept)
		},
		"in AfterCommit": func(ctx context.Context, t *testing.T, b *bundle, check func(rocketflow.Tx)) {
			called := false
			ok(t, b.outbox.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
				tx.AfterCommit(func() { called = true; check(tx) })
				return tx.Publish(ctx, credited{"first", 1})
			}))
			if !called {
				t.Error("not called")
			}
		},
		"in AfterCommit, without events": func(ctx context.Context, _ *testing.T, b *bundle, check func(rocketflow.Tx)) {
			_ = b.outbox.Within(ctx, func(_ context.Context, tx rocketflow.Tx) error { tx.AfterCommit(func() { check(tx) }); return nil })
		},
		"savepoint released": func(ctx context.Context, t *testing.T, b *bundle, check func(rocketflow.Tx)) {
			tx := begin(b, ctx, t)
			inner := savepoint(ctx, t, tx)
			ok(t, inner.Commit(ctx))
			check(inner)
			ok(t, tx.Commit(ctx))
			check(inner)
		},
		"savepoint rolled back": func(ctx context.Context, t *testing.T, b *bundle, check func(rocketflow.Tx)) {
			tx := begin(b, ctx, t)
			inner := savepoint(ctx, t, tx)
			ok(t, inner.Rollback(ctx))
			check(inner)
			ok(t, tx.Commit(ctx))
		},
		"savepoint of one that is rolled back": func(ctx context.Context, t *testing.T, b *bundle, check func(rocketflow.Tx)) {
			tx := begin(b, ctx, t)
			outer := savepoint(ctx, t, tx)
			inner := savepoint(ctx, t, outer)
			ok(t, outer.Rollback(ctx))
			check(inner)
			ok(t, tx.Commit(ctx))
		},
		"savepoint after the transaction": func(ctx context.Context, t *testing.T, b *bundle, check func(rocketflow.Tx)) {
			tx := begin(b, ctx, t)
			inner := savepoint(ctx, t, tx)
			ok(t, tx.Commit(ctx))
			check(inner)
		},
		"joined": func(ctx context.Context, t *testing.T, b *bundle, check func(rocketflow.Tx)) {
			owner, err := b.pool.Begin(ctx)
			ok(t, err)
			tx := b.outbox.Join(owner)
			inner := savepoint(ctx, t, tx)
			ok(t, tx.Publish(ctx, credited{"first", 1}))
			ok(t, tx.Commit(ctx))
			check(tx)
			check(inner)
		},
		"joined, ended by its owner": func(ctx context.Context, t *testing.T, b *bundle, check func(rocketflow.Tx)) {
			owner, err := b.pool.Begin(ctx)
			ok(t, err)
			tx := b.outbox.Join(owner)
			ok(t, owner.Commit(ctx))
			check(tx)
		},
		"joined in name only": func(ctx context.Context, t *testing.T, b *bundle, check func(rocketflow.Tx)) {
			owner, err := b.pool.Begin(ctx)
			ok(t, err)
			defer func() { _ = owner.Rollback(ctx) }()
			tx := b.outbox.Join(nominal{owner})
			ok(t, tx.Commit(ctx))
			check(tx)
		},
		"ended in SQL": func(ctx context.Context, t *testing.T, b *bundle, check func(rocketflow.Tx)) {
			tx := begin(b, ctx, t)
			inner := savepoint(ctx, t, tx)
			_, err := tx.Exec(ctx, "ROLLBACK")
			ok(t, err)
			check(inner)
			check(tx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			var log logged
			b := setup(t, func(c *outbox.Config) { c.Logger = log.logger() })
			checks := 0
			ended(ctx, t, b, func(tx rocketflow.Tx) {
				checks++
				batch := &pgx.Batch{}
				batch.Queue("INSERT INTO account VALUES ('x', 1)")
				_, begun := tx.Begin(ctx)
				_, exec := tx.Exec(ctx, "INSERT INTO account VALUES ('x', 1)")
				_, query := tx.Query(ctx, "INSERT INTO account VALUES ('x', 1) RETURNING id") //nolint:sqlclosecheck // there are none
				_, copied := tx.CopyFrom(ctx, pgx.Identifier{"account"}, []string{"id", "cents"}, pgx.CopyFromRows([][]any{{"x", 1}}))
				_, prepared := tx.Prepare(ctx, "x", "SELECT 1")
				objects := tx.LargeObjects()
				_, object := objects.Create(ctx, 0)
				for what, err := range map[string]error{
					"Publish": tx.Publish(ctx, credited{"x", 1}), "Publish of nothing": tx.Publish(ctx), "Begin": begun, "Exec": exec, "Query": query,
					"QueryRow":  tx.QueryRow(ctx, "SELECT 1").Scan(new(int)),
					"SendBatch": tx.SendBatch(ctx, batch).Close(), "CopyFrom": copied, "Prepare": prepared, "LargeObjects": object,
					"Commit": tx.Commit(ctx), "Rollback": tx.Rollback(ctx),
				} {
					if !errors.Is(err, pgx.ErrTxClosed) && !(name == "ended in SQL" && what == "Rollback" && err == nil) {
						t.Errorf("%s: %v", what, err)
					}
				}
				tx.AfterCommit(func() { t.Error("called, though registered after the end") })
			})
			if n := log.count("AfterCommit will not be called"); n != checks {
				t.Errorf("%d lines in the log for %d functions that are not called", n, checks)
			}
			if n := b.count(t, "account"); n != 0 {
				t.Errorf("%d rows were written", n)
			}
			poll.Until(t, "all connections given back", func() bool { return b.pool.Stat().AcquiredConns() == 0 })
		})
	}
}

// fn commits by itself, ignores that the outcome is unknown, and returns nil: Within returns ErrCommitUnknown.
func TestWithinReturnsAnUnknownCommitThatFnIgnores(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := setup(t, nil)
	err := b.outbox.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO account VALUES ('a', 1)"); err != nil {
			return err
		}
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		if _, err := tx.Exec(ctx, `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(2); RETURN NULL; END';
			CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON account DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow();
			INSERT INTO account VALUES ('b', 1)`); err != nil {
			return err
		}
		_ = tx.Commit(short)
		return nil
	})
	if !errors.Is(err, rocketflow.ErrCommitUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want ErrCommitUnknown and the reason", err)
	}
}
