package outbox_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/migrations"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/test/poll"
)

// trial is a transaction of a test, in which events are published whose accounts determine what must become of them.
type trial struct {
	*bundle
	t   *testing.T
	ctx context.Context
	mu  sync.Mutex
	ran []string // functions of AfterCommit
}

func (x *trial) exec(tx pgx.Tx, sql string) {
	x.t.Helper()
	if _, err := tx.Exec(x.ctx, sql); err != nil {
		x.t.Fatalf("%s: %v", sql, err)
	}
}

// publish publishes an event, changes the account with it, and registers a function.
func (x *trial) publish(tx pgx.Tx, account string) {
	x.t.Helper()
	if _, err := tx.Exec(x.ctx, "INSERT INTO account VALUES ($1, 1)", account); err != nil {
		x.t.Fatal(err)
	}
	publisher := tx.(rocketflow.Tx)
	if err := publisher.Publish(x.ctx, credited{account, 1}); err != nil {
		x.t.Fatal(err)
	}
	publisher.AfterCommit(func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.ran = append(x.ran, account)
	})
}

func (x *trial) begin(tx pgx.Tx) pgx.Tx {
	x.t.Helper()
	inner, err := tx.Begin(x.ctx)
	if err != nil {
		x.t.Fatal(err)
	}
	return inner
}

func (x *trial) owner() pgx.Tx {
	x.t.Helper()
	tx, err := x.pool.Begin(x.ctx)
	if err != nil {
		x.t.Fatal(err)
	}
	return tx
}

func (x *trial) commit(tx pgx.Tx) {
	x.t.Helper()
	if err := tx.Commit(x.ctx); err != nil {
		x.t.Fatalf("commit: %v", err)
	}
}

func (x *trial) rollback(tx pgx.Tx) {
	x.t.Helper()
	if err := tx.Rollback(x.ctx); err != nil {
		x.t.Fatalf("rollback: %v", err)
	}
}

// wrapped is a transaction as tracers and test helpers wrap them.
type wrapped struct{ pgx.Tx }

func (w wrapped) Begin(ctx context.Context) (pgx.Tx, error) {
	tx, err := w.Tx.Begin(ctx)
	return wrapped{tx}, err
}

// nominal is a transaction whose end is another's affair.
type nominal struct{ pgx.Tx }

func (nominal) Commit(context.Context) error   { return nil }
func (nominal) Rollback(context.Context) error { return nil }

// An event is sent if and only if its part of the transaction is committed, for all combinations of begin, join and end. The
// accounts show which part is: the events that are out are those of the accounts that are there.
func TestEventsFollowTheirRows(t *testing.T) {
	t.Parallel()
	within := func(x *trial, fn func(tx rocketflow.Tx) error) error {
		return x.outbox.Within(x.ctx, func(_ context.Context, tx rocketflow.Tx) error { return fn(tx) })
	}
	must := func(x *trial, err error) {
		x.t.Helper()
		if err != nil {
			x.t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		want []string // accounts
		ran  []string // functions that are called: those of events that don't need the sweep; nil: as want
		run  func(x *trial)
	}{
		"joined": {want: []string{"a"}, run: func(x *trial) {
			tx := x.outbox.Join(x.owner())
			x.publish(tx, "a")
			x.commit(tx)
		}},
		"joined, rolled back": {run: func(x *trial) {
			tx := x.outbox.Join(x.owner())
			x.publish(tx, "a")
			x.rollback(tx)
		}},
		"joined savepoint, owner rolls back": {run: func(x *trial) {
			owner := x.owner()
			tx := x.outbox.Join(x.begin(owner))
			x.publish(tx, "a")
			x.commit(tx)
			x.rollback(owner)
		}},
		"joined savepoint, owner commits": {want: []string{"a"}, ran: []string{}, run: func(x *trial) {
			owner := x.owner()
			tx := x.outbox.Join(x.begin(owner))
			x.publish(tx, "a")
			x.commit(tx)
			x.commit(owner)
		}},
		"joined savepoint of a savepoint, which is rolled back": {want: []string{"b"}, ran: []string{}, run: func(x *trial) {
			owner := x.owner()
			outer := x.begin(owner)
			tx := x.outbox.Join(x.begin(outer))
			x.publish(tx, "a")
			x.commit(tx)
			x.rollback(outer)
			tx = x.outbox.Join(x.begin(owner))
			x.publish(tx, "b")
			x.commit(tx)
			x.commit(owner)
		}},
		"owner's savepoint around the publish is rolled back": {want: []string{"b"}, run: func(x *trial) {
			owner := x.owner()
			tx := x.outbox.Join(owner)
			part := x.begin(owner)
			x.publish(tx, "a")
			x.rollback(part)
			x.publish(tx, "b")
			x.commit(tx)
		}},
		"owner's savepoint in SQL": {want: []string{"a", "c"}, run: func(x *trial) {
			owner := x.owner()
			tx := x.outbox.Join(owner)
			x.publish(tx, "a")
			x.exec(owner, "SAVEPOINT s")
			x.publish(tx, "b")
			x.exec(owner, "ROLLBACK TO s")
			x.publish(tx, "c")
			x.commit(tx)
		}},
		"savepoint of a joined one": {want: []string{"a", "c"}, run: func(x *trial) {
			tx := x.outbox.Join(x.owner())
			x.publish(tx, "a")
			part := x.begin(tx)
			x.publish(part, "b")
			x.rollback(part)
			part = x.begin(tx)
			x.publish(part, "c")
			x.commit(part)
			x.commit(tx)
		}},
		"joined wrapper": {want: []string{"a"}, run: func(x *trial) {
			tx := x.outbox.Join(wrapped{x.owner()})
			x.publish(tx, "a")
			x.commit(tx)
		}},
		"joined wrapper of a savepoint, owner rolls back": {run: func(x *trial) {
			owner := x.owner()
			tx := x.outbox.Join(wrapped{x.begin(owner)})
			x.publish(tx, "a")
			x.commit(tx)
			x.rollback(owner)
		}},
		"commit in name only, owner rolls back": {run: func(x *trial) {
			owner := x.owner()
			tx := x.outbox.Join(nominal{owner})
			x.publish(tx, "a")
			x.commit(tx)
			x.rollback(owner)
		}},
		"commit in name only, owner commits": {want: []string{"a"}, ran: []string{}, run: func(x *trial) {
			owner := x.owner()
			tx := x.outbox.Join(nominal{owner})
			x.publish(tx, "a")
			x.commit(tx)
			x.commit(owner)
		}},
		"owner rolls back in SQL": {run: func(x *trial) {
			owner := x.owner()
			tx := x.outbox.Join(owner)
			x.publish(tx, "a")
			x.exec(owner, "ROLLBACK")
			if err := tx.Publish(x.ctx, credited{"b", 1}); !errors.Is(err, pgx.ErrTxClosed) {
				x.t.Errorf("publish: %v", err)
			}
			_ = tx.Commit(x.ctx)
		}},
		"publish fails in a part that is rolled back": {want: []string{"b"}, run: func(x *trial) {
			owner := x.owner()
			tx := x.outbox.Join(owner)
			x.exec(owner, "SAVEPOINT s")
			_, _ = owner.Exec(x.ctx, "nonsense")
			if err := tx.Publish(x.ctx, credited{"a", 1}); err == nil {
				x.t.Error("published in an aborted transaction")
			}
			x.exec(owner, "ROLLBACK TO s")
			x.publish(tx, "b")
			x.commit(tx)
		}},
		"join within, rolled back": {run: func(x *trial) {
			no := errors.New("no")
			if err := within(x, func(tx rocketflow.Tx) error {
				part := x.outbox.Join(x.begin(tx))
				x.publish(part, "a")
				x.commit(part)
				return no
			}); !errors.Is(err, no) {
				x.t.Error(err)
			}
		}},
		"join within, nested twice": {want: []string{"a", "b", "d"}, run: func(x *trial) {
			must(x, within(x, func(tx rocketflow.Tx) error {
				x.publish(tx, "a")
				outer := x.begin(tx)
				part := x.outbox.Join(x.begin(outer))
				x.publish(part, "b")
				x.commit(part)
				part = x.outbox.Join(x.begin(outer))
				x.publish(part, "c")
				x.rollback(part)
				x.commit(outer)
				outer = x.begin(tx)
				x.publish(x.outbox.Join(outer), "x")
				x.rollback(outer)
				x.publish(x.outbox.Join(tx), "d")
				return nil
			}))
		}},
		"join within, of the whole": {want: []string{"a"}, run: func(x *trial) {
			must(x, within(x, func(tx rocketflow.Tx) error {
				part := x.outbox.Join(tx)
				x.publish(part, "a")
				return part.Commit(x.ctx)
			}))
		}},
		"join within, of a wrapper": {want: []string{"a", "b", "d"}, run: func(x *trial) {
			must(x, within(x, func(tx rocketflow.Tx) error {
				x.publish(tx, "a")
				w := wrapped{tx}
				part := x.outbox.Join(x.begin(w))
				x.publish(part, "b")
				x.commit(part)
				part = x.outbox.Join(x.begin(w))
				x.publish(part, "c")
				x.rollback(part)
				inner := x.begin(x.outbox.Join(w))
				x.publish(inner, "d")
				x.commit(inner)
				return nil
			}))
		}},
		"join within, of a wrapper, rolled back": {run: func(x *trial) {
			no := errors.New("no")
			if err := within(x, func(tx rocketflow.Tx) error {
				part := x.outbox.Join(x.begin(wrapped{tx}))
				x.publish(part, "a")
				x.commit(part)
				return no
			}); !errors.Is(err, no) {
				x.t.Error(err)
			}
		}},
		"join of another outbox's, rolled back": {run: func(x *trial) {
			must(x, migrations.Up(x.ctx, x.pool, "other"))
			other := x.start(x.t, func(c *outbox.Config) { c.Source, c.Schema = "other", "other" })
			no := errors.New("no")
			if err := other.Within(x.ctx, func(_ context.Context, tx rocketflow.Tx) error {
				part := x.outbox.Join(x.begin(tx))
				x.publish(part, "a")
				x.commit(part)
				return no
			}); !errors.Is(err, no) {
				x.t.Error(err)
			}
		}},
		"savepoint in SQL": {want: []string{"a", "c"}, run: func(x *trial) {
			must(x, within(x, func(tx rocketflow.Tx) error {
				x.publish(tx, "a")
				x.exec(tx, "SAVEPOINT s")
				x.publish(tx, "b")
				x.exec(tx, "ROLLBACK TO SAVEPOINT s")
				x.publish(tx, "c")
				return nil
			}))
		}},
		"savepoint in SQL, several statements in one": {want: []string{"a", "c"}, run: func(x *trial) {
			must(x, within(x, func(tx rocketflow.Tx) error {
				x.publish(tx, "a")
				x.exec(tx, "SELECT 1; SAVEPOINT s")
				x.publish(tx, "b")
				x.exec(tx, "/* b; not */ ROLLBACK TO s")
				x.publish(tx, "c")
				return nil
			}))
		}},
		"savepoint in SQL, by all ways": {want: []string{"a", "f"}, run: func(x *trial) {
			must(x, within(x, func(tx rocketflow.Tx) error {
				x.publish(tx, "a")
				batch := &pgx.Batch{}
				batch.Queue("SELECT 1")
				batch.Queue("SAVEPOINT s")
				must(x, tx.SendBatch(x.ctx, batch).Close())
				x.publish(tx, "b")
				rows, err := tx.Query(x.ctx, "ROLLBACK TO s")
				must(x, err)
				rows.Close()
				x.publish(tx, "c")
				_ = tx.QueryRow(x.ctx, "ROLLBACK TO s").Scan()
				x.publish(tx, "d")
				_, err = tx.Prepare(x.ctx, "back", "ROLLBACK TO s")
				must(x, err)
				x.exec(tx, "back")
				x.publish(tx, "f")
				return nil
			}))
		}},
		"savepoint on the connection": {want: []string{"a", "c"}, run: func(x *trial) {
			must(x, within(x, func(tx rocketflow.Tx) error {
				x.publish(tx, "a")
				_, err := tx.Conn().Exec(x.ctx, "SAVEPOINT s")
				must(x, err)
				x.publish(tx, "b")
				_, err = tx.Conn().Exec(x.ctx, "ROLLBACK TO s")
				must(x, err)
				x.publish(tx, "c")
				return nil
			}))
		}},
		"savepoint on the connection, asked for while a result is read": {want: []string{"a", "c"}, run: func(x *trial) {
			must(x, within(x, func(tx rocketflow.Tx) error {
				x.publish(tx, "a")
				rows, err := tx.Query(x.ctx, "SELECT generate_series(1, 10)")
				must(x, err)
				rows.Next()
				conn := tx.Conn()
				rows.Close()
				x.exec(tx, "SELECT 1")
				_, err = conn.Exec(x.ctx, "SAVEPOINT s")
				must(x, err)
				x.publish(tx, "b")
				_, err = conn.Exec(x.ctx, "ROLLBACK TO s")
				must(x, err)
				x.publish(tx, "c")
				return nil
			}))
		}},
		"savepoint on the connection, around what was published before one of Begin": {run: func(x *trial) {
			if err := within(x, func(tx rocketflow.Tx) error {
				x.publish(tx, "a")
				part := x.begin(tx)
				conn := part.Conn() // the row of a is written in part
				_, err := conn.Exec(x.ctx, "ROLLBACK TO sp_1")
				must(x, err)
				x.commit(part)
				return nil
			}); err == nil {
				x.t.Error("committed without an event that was published before what was rolled back")
			}
		}},
		"savepoint in SQL within one of Begin, both rolled back": {want: []string{"a", "d"}, run: func(x *trial) {
			must(x, within(x, func(tx rocketflow.Tx) error {
				x.publish(tx, "a")
				part := x.begin(tx)
				x.publish(part, "b")
				x.exec(part, "SAVEPOINT s")
				x.publish(part, "c")
				x.exec(part, "ROLLBACK TO s")
				x.rollback(part)
				x.publish(tx, "d")
				return nil
			}))
		}},
		"savepoint of Begin within one in SQL, rolled back at once": {want: []string{"a", "d"}, run: func(x *trial) {
			must(x, within(x, func(tx rocketflow.Tx) error {
				x.publish(tx, "a")
				x.exec(tx, "SAVEPOINT s")
				part := x.begin(tx)
				x.publish(part, "b")
				x.commit(part)
				x.publish(tx, "c")
				x.exec(tx, "ROLLBACK TO s")
				x.publish(tx, "d")
				return nil
			}))
		}},
		"savepoint of Begin rolled back in SQL": {want: []string{"a", "d"}, run: func(x *trial) {
			must(x, within(x, func(tx rocketflow.Tx) error {
				x.publish(tx, "a")
				part := x.begin(tx)
				x.publish(part, "b")
				inner := x.begin(part)
				x.publish(inner, "c")
				x.exec(tx, `ROLLBACK TO SAVEPOINT "sp_1"`)
				if err := inner.(rocketflow.Tx).Publish(x.ctx, credited{"x", 1}); !errors.Is(err, pgx.ErrTxClosed) {
					x.t.Errorf("publish in a savepoint that is gone: %v", err)
				}
				x.publish(part, "d")
				x.commit(part)
				return nil
			}))
		}},
		"rolled back in SQL": {run: func(x *trial) {
			err := within(x, func(tx rocketflow.Tx) error {
				x.publish(tx, "a")
				x.exec(tx, "ROLLBACK")
				return nil
			})
			if !errors.Is(err, pgx.ErrTxClosed) {
				x.t.Errorf("got %v", err)
			}
		}},
		"rolled back in SQL and begun again": {want: []string{"b"}, run: func(x *trial) {
			must(x, within(x, func(tx rocketflow.Tx) error {
				x.publish(tx, "a")
				x.exec(tx, "ROLLBACK; BEGIN")
				x.publish(tx, "b")
				return nil
			}))
		}},
		"committed in SQL": {want: []string{"a"}, ran: []string{}, run: func(x *trial) {
			err := within(x, func(tx rocketflow.Tx) error {
				x.publish(tx, "a")
				x.exec(tx, "COMMIT")
				return nil
			})
			if !errors.Is(err, pgx.ErrTxClosed) {
				x.t.Errorf("got %v", err)
			}
		}},
		"a commit query that doesn't commit": {run: func(x *trial) {
			must(x, x.outbox.WithinTx(x.ctx, pgx.TxOptions{CommitQuery: "SELECT 1"}, func(_ context.Context, tx rocketflow.Tx) error {
				x.publish(tx, "a")
				return nil
			}))
		}},
		"a commit query that commits": {want: []string{"a"}, run: func(x *trial) {
			must(x, x.outbox.WithinTx(x.ctx, pgx.TxOptions{CommitQuery: "COMMIT WORK"}, func(_ context.Context, tx rocketflow.Tx) error {
				x.publish(tx, "a")
				return nil
			}))
		}},
		"a savepoint that can't be rolled back": {run: func(x *trial) {
			err := within(x, func(tx rocketflow.Tx) error {
				part := x.begin(tx)
				x.publish(part, "a")
				ended, cancel := context.WithCancel(x.ctx)
				cancel()
				if err := part.Rollback(ended); err == nil {
					x.t.Error("rolled back by a context that has ended")
				}
				return nil
			})
			if err == nil {
				x.t.Error("work and its event have parted")
			}
		}},
	} {
		for _, path := range bothPaths {
			t.Run(name+", "+path.String(), func(t *testing.T) {
				t.Parallel()
				x := &trial{t: t, ctx: t.Context()}
				x.bundle = setup(t, func(c *outbox.Config) { c.Path = path })
				c.run(x)
				for _, table := range []string{"account", "outbox"} {
					if n := x.count(t, table); n != len(c.want) {
						t.Errorf("%d rows in %s, want %d", n, table, len(c.want))
					}
				}
				// What would go out by itself has gone when a later event has; what owes its place to the sweep comes late.
				if err := x.credit(t.Context(), "last", 1); err != nil {
					t.Fatal(err)
				}
				poll.Until(t, "the events", func() bool { return len(x.broker.events()) > len(c.want) && x.broker.open() == 0 })
				var out []string
				for _, e := range x.broker.events() {
					if e.Subject != "last" {
						out = append(out, e.Subject)
					}
				}
				slices.Sort(out)
				if !slices.Equal(out, c.want) {
					t.Errorf("out are %q, want %q", out, c.want)
				}
				ran := c.ran
				if ran == nil {
					ran = c.want
				}
				x.mu.Lock()
				defer x.mu.Unlock()
				if !slices.Equal(x.ran, ran) {
					t.Errorf("after the commit ran %q, want %q", x.ran, ran)
				}
				poll.Until(t, "all connections given back", func() bool { return x.pool.Stat().AcquiredConns() == 0 })
			})
		}
	}
}

// Events of a joined transaction are sent at once after its commit, not by the sweep.
func TestJoinedEventsDontWaitForTheSweep(t *testing.T) {
	t.Parallel()
	x := &trial{t: t, ctx: t.Context()}
	x.bundle = setup(t, func(c *outbox.Config) { c.SweepGrace = time.Hour })
	tx := x.outbox.Join(x.owner())
	x.publish(tx, "a")
	x.commit(tx)
	tx = x.outbox.Join(wrapped{x.owner()})
	x.publish(tx, "b")
	x.commit(tx)
	poll.Until(t, "the events", func() bool { return len(x.broker.events()) == 2 })
}
