package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/outbox"
)

// outcomes keeps how transactions ended.
type outcomes struct {
	committed, rolledBack, unknown atomic.Int64
}

func (o *outcomes) listener() *outbox.Listener {
	return &outbox.Listener{
		Committed: func([]rocketflow.Event) { o.committed.Add(1) },
		RolledBack: func(i outbox.RolledBackInfo) {
			if i.Unknown {
				o.unknown.Add(1)
			} else {
				o.rolledBack.Add(1)
			}
		},
	}
}

var bothPaths = []outbox.Path{outbox.HalfMessages, outbox.Relay}

// The error of a commit that Postgres refuses is not ErrCommitUnknown, whether COMMIT went by itself or with the rows.
func TestRefusedCommitsAreNotUnknown(t *testing.T) {
	t.Parallel()
	for _, path := range bothPaths {
		t.Run(path.String(), func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			var o outcomes
			b := setup(t, func(c *outbox.Config) { c.Path, c.Listener = path, o.listener() })
			if _, err := b.pool.Exec(ctx, "CREATE TABLE one (id int UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO one VALUES (1)"); err != nil {
				t.Fatal(err)
			}
			publish := func(ctx context.Context, tx rocketflow.Tx) error { return tx.Publish(ctx, credited{"a", 1}) }
			refused := func(code string, err error) {
				t.Helper()
				var pgErr *pgconn.PgError
				if !errors.As(err, &pgErr) || pgErr.Code != code || errors.Is(err, rocketflow.ErrCommitUnknown) {
					t.Errorf("got %v, want SQLSTATE %s", err, code)
				}
			}

			// At COMMIT.
			refused("23505", b.outbox.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
				_, err := tx.Exec(ctx, "INSERT INTO one VALUES ($1)", 1)
				return errors.Join(err, publish(ctx, tx))
			}))
			if n := o.rolledBack.Load(); n != 1 {
				t.Errorf("%d reported as rolled back, want 1", n)
			}
			// At the rows: the stream was moved by another.
			serializable := pgx.TxOptions{IsoLevel: pgx.Serializable}
			refused("40001", b.outbox.WithinTx(ctx, serializable, func(ctx context.Context, tx rocketflow.Tx) error {
				if _, err := tx.Exec(ctx, "SELECT * FROM account WHERE id = $1", "a"); err != nil { // takes the snapshot
					return err
				}
				if err := b.credit(context.WithoutCancel(ctx), "a", 1); err != nil {
					return err
				}
				return publish(ctx, tx)
			}))
			// Before: a statement failed, and fn ignores it.
			err := b.outbox.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
				_, _ = tx.Exec(ctx, "INSERT INTO account VALUES ($1, $2)", "a", nil)
				return publish(ctx, tx)
			})
			refused("25P02", err)
			// The caller has gone.
			gone, cancel := context.WithCancel(ctx)
			err = b.outbox.Within(gone, func(ctx context.Context, tx rocketflow.Tx) error {
				defer cancel()
				_, err := tx.Exec(ctx, "INSERT INTO account VALUES ($1, $2)", "b", 1)
				return errors.Join(err, publish(ctx, tx))
			})
			if !errors.Is(err, context.Canceled) || errors.Is(err, rocketflow.ErrCommitUnknown) {
				t.Errorf("canceled: got %v", err)
			}
			if n := b.count(t, "outbox"); n != 1 || o.committed.Load() != 1 || o.unknown.Load() != 0 {
				t.Errorf("%d rows, %d reported as committed, %d unknown: want 1, 1, 0", n, o.committed.Load(), o.unknown.Load())
			}
			poll.Until(t, "the one event", func() bool { return len(b.broker.events()) == 1 })
			// None is left in a transaction. (The sweep and the acks use one now and then.)
			poll.Until(t, "all connections given back", func() bool { return b.pool.Stat().AcquiredConns() == 0 })
		})
	}
}

// The first statement begins the transaction, whatever its kind.
func TestFirstStatementBeginsTheTransaction(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := setup(t, func(c *outbox.Config) { c.Path = outbox.Relay })
	inTransaction := func(name string, first func(tx rocketflow.Tx) error) {
		t.Helper()
		tx, err := b.outbox.Begin(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
		if err != nil {
			t.Fatal(err)
		}
		if err := first(tx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var level string
		if err := tx.QueryRow(ctx, "SHOW transaction_isolation").Scan(&level); err != nil || level != "repeatable read" {
			t.Errorf("%s: then isolation is %q, %v", name, level, err)
		}
		if status := tx.Conn().PgConn().TxStatus(); status != 'T' {
			t.Errorf("%s: status %c", name, status)
		}
		if err := tx.Rollback(ctx); err != nil {
			t.Errorf("%s: roll back: %v", name, err)
		}
		if _, err := tx.Exec(ctx, "SELECT $1::int", 1); !errors.Is(err, pgx.ErrTxClosed) {
			t.Errorf("%s: after the end: %v", name, err)
		}
		if err := tx.QueryRow(ctx, "SELECT 1").Scan(new(int)); !errors.Is(err, pgx.ErrTxClosed) {
			t.Errorf("%s: after the end: %v", name, err)
		}
	}
	inTransaction("exec", func(tx rocketflow.Tx) error {
		tag, err := tx.Exec(ctx, "INSERT INTO account VALUES ($1, $2)", "x", 1)
		if tag.RowsAffected() != 1 {
			t.Errorf("tag is %v", tag)
		}
		return err
	})
	inTransaction("two statements", func(tx rocketflow.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO account VALUES ('x', 1); INSERT INTO account VALUES ('y', 1)")
		return err
	})
	inTransaction("row", func(tx rocketflow.Tx) error {
		var n int
		return tx.QueryRow(ctx, "SELECT $1::int", 7).Scan(&n)
	})
	inTransaction("no row", func(tx rocketflow.Tx) error {
		if err := tx.QueryRow(ctx, "SELECT 1 WHERE $1::int = 0", 7).Scan(new(int)); err != pgx.ErrNoRows {
			return err
		}
		return nil
	})
	inTransaction("named arguments", func(tx rocketflow.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO account VALUES (@id, 1)", pgx.NamedArgs{"id": "x"})
		return err
	})
	inTransaction("mode", func(tx rocketflow.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO account VALUES ($1, 1)", pgx.QueryExecModeExec, "x")
		return err
	})
	inTransaction("query", func(tx rocketflow.Tx) error {
		rows, _ := tx.Query(ctx, "SELECT generate_series(1, $1)", 3)
		got, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if len(got) != 3 {
			t.Errorf("rows are %v", got)
		}
		return err
	})
	inTransaction("batch", func(tx rocketflow.Tx) error {
		batch := &pgx.Batch{}
		var got []int
		batch.Queue("SELECT $1::int", 1).QueryRow(func(row pgx.Row) error { got = append(got, 1); return row.Scan(&got[0]) })
		batch.Queue("INSERT INTO account VALUES ($1, 1)", "x")
		err := tx.SendBatch(ctx, batch).Close()
		if len(got) != 1 {
			t.Errorf("callbacks were not called")
		}
		return err
	})
	inTransaction("savepoint", func(tx rocketflow.Tx) error {
		inner, err := tx.Begin(ctx)
		if err != nil {
			return err
		}
		return inner.Commit(ctx)
	})
	inTransaction("connection", func(tx rocketflow.Tx) error {
		_, err := tx.Conn().Exec(ctx, "INSERT INTO account VALUES ('x', 1)")
		return err
	})
	if n := b.count(t, "account"); n != 0 {
		t.Errorf("%d rows stayed", n)
	}

	// One that can't even be prepared aborts the transaction, as ever.
	err := b.outbox.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
		_, _ = tx.Exec(ctx, "INSERT INTO nowhere VALUES ($1)", 1)
		_, err := tx.Exec(ctx, "INSERT INTO account VALUES ($1, $2)", "x", 1)
		return err
	})
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Code != "25P02" {
		t.Errorf("after a statement that can't be prepared: %v", err)
	}
	// Options that Postgres refuses are an error, not a transaction without them.
	err = b.outbox.WithinTx(ctx, pgx.TxOptions{IsoLevel: "nonsense"}, func(ctx context.Context, tx rocketflow.Tx) error {
		_, _ = tx.Exec(ctx, "INSERT INTO account VALUES ($1, $2)", "x", 1)
		return nil
	})
	if err == nil || b.count(t, "account") != 0 {
		t.Errorf("bad options: %v", err)
	}
	// Nothing but an event, and nothing at all.
	if err := b.publish(ctx, 1, "a"); err != nil {
		t.Error(err)
	}
	if err := b.outbox.Within(ctx, func(context.Context, rocketflow.Tx) error { return nil }); err != nil {
		t.Error(err)
	}
	poll.Until(t, "the event", func() bool { return len(b.broker.events()) == 1 })
}

// Whatever fn ignores, nil means that the transaction is committed.
func TestNilMeansCommitted(t *testing.T) {
	t.Parallel()
	for _, path := range bothPaths {
		for name, c := range map[string]struct {
			fn        func(ctx context.Context, tx rocketflow.Tx)
			committed bool
		}{
			"the first statement loses the connection": {fn: func(ctx context.Context, tx rocketflow.Tx) {
				_, _ = tx.Exec(ctx, "SELECT pg_terminate_backend(pg_backend_pid()), $1::int", 1)
			}},
			"a later one does": {fn: func(ctx context.Context, tx rocketflow.Tx) {
				_, _ = tx.Exec(ctx, "INSERT INTO account VALUES ($1, 1)", "a")
				_, _ = tx.Exec(ctx, "SELECT pg_terminate_backend(pg_backend_pid())")
			}},
			"fn rolls back": {fn: func(ctx context.Context, tx rocketflow.Tx) {
				_, _ = tx.Exec(ctx, "INSERT INTO account VALUES ($1, 1)", "a")
				_ = tx.Rollback(ctx)
			}},
			"a statement rolls back": {fn: func(ctx context.Context, tx rocketflow.Tx) {
				_, _ = tx.Exec(ctx, "INSERT INTO account VALUES ($1, 1)", "a")
				_, _ = tx.Exec(ctx, "ROLLBACK")
			}},
			"fn commits": {committed: true, fn: func(ctx context.Context, tx rocketflow.Tx) {
				_, _ = tx.Exec(ctx, "INSERT INTO account VALUES ($1, 1)", "a")
				_ = tx.Commit(ctx)
			}},
		} {
			for _, publish := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v/%s/%v", path, name, publish), func(t *testing.T) {
					t.Parallel()
					b := setup(t, func(c *outbox.Config) { c.Path = path })
					err := b.outbox.Within(t.Context(), func(ctx context.Context, tx rocketflow.Tx) error {
						if publish {
							if err := tx.Publish(ctx, credited{"a", 1}); err != nil {
								t.Error(err)
							}
						}
						c.fn(ctx, tx)
						return nil
					})
					want := 0
					if c.committed {
						want = 1
					}
					if n := b.count(t, "account"); n != want || (err == nil) != c.committed {
						t.Errorf("%d rows, %v", n, err)
					}
					if publish && b.count(t, "outbox") != want {
						t.Errorf("%d events", b.count(t, "outbox"))
					}
				})
			}
		}
	}
}

// The connection is cut in the last round trip, before or behind COMMIT: the error is ErrCommitUnknown, and
// the event is sent if and only if the transaction is committed.
func TestCommitWithoutResponseIsUnknown(t *testing.T) {
	t.Parallel()
	for name, responseOnly := range map[string]bool{"before Postgres has it": false, "only the response": true} {
		for _, path := range bothPaths {
			t.Run(path.String()+" "+name, func(t *testing.T) {
				t.Parallel()
				ctx := t.Context()
				var o outcomes
				b := setup(t, nil)
				config := b.pool.Config()
				config.MaxConns = 1
				var last atomic.Pointer[cuttable]
				config.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
					conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
					if err != nil {
						return nil, err
					}
					c := &cuttable{Conn: conn}
					last.Store(c)
					return c, nil
				}
				pool, err := pgxpool.NewWithConfig(ctx, config)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(pool.Close)
				box := b.start(t, func(c *outbox.Config) { c.Path, c.Pool, c.Listener = path, pool, o.listener() })
				publish := func(account string, then func()) error {
					return box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
						_, err := tx.Exec(ctx, "INSERT INTO account VALUES ($1, $2)", account, 1)
						then()
						return errors.Join(err, tx.Publish(ctx, credited{account, 1}))
					})
				}
				if err := publish("first", func() {}); err != nil { // all statements are prepared then
					t.Fatal(err)
				}
				err = publish("second", func() { last.Load().cut(path == outbox.Relay, responseOnly) })
				if !errors.Is(err, rocketflow.ErrCommitUnknown) || o.unknown.Load() != 1 {
					t.Errorf("got %v, and %d reported as unknown", err, o.unknown.Load())
				}
				want := 1
				if responseOnly {
					want = 2
				}
				poll.Until(t, "the transaction's fate", func() bool { return b.count(t, "account") == want && b.count(t, "outbox") == want })
				poll.Until(t, "the event's", func() bool { return len(b.broker.events()) == want && b.count(t, "outbox_ack") == want })
			})
		}
	}
}

// cuttable is a connection that can be cut where COMMIT passes.
type cuttable struct {
	net.Conn
	armed, atOnce, responseOnly, mute atomic.Bool
}

// cut arms it: for what is written next, or for a COMMIT by itself.
func (c *cuttable) cut(atOnce, responseOnly bool) {
	c.atOnce.Store(atOnce)
	c.responseOnly.Store(responseOnly)
	c.armed.Store(true)
}

func (c *cuttable) Write(p []byte) (int, error) {
	if c.armed.Load() && (c.atOnce.Load() || strings.Contains(string(p), "commit\x00")) {
		if !c.responseOnly.Load() {
			c.armed.Store(false)
			n, _ := c.Conn.Write(p[:len(p)-6]) // enough that Postgres may have it
			_ = c.Conn.Close()
			return n, io.ErrClosedPipe
		}
		c.mute.Store(true)
	}
	return c.Conn.Write(p)
}

func (c *cuttable) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.mute.Load() && n > 0 {
		_ = c.Conn.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}
