package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// At a stricter level as the database's default a transaction fails with Postgres' serialization error, and with no other,
// and can be run again until it commits. What the outbox does for itself doesn't fail.
func TestStricterDefaultIsolationLevelsWork(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"repeatable read", "serializable"} {
		for _, path := range []outbox.Path{outbox.Auto, outbox.HalfMessages, outbox.Relay} {
			t.Run(level+", "+path.String(), func(t *testing.T) {
				t.Parallel()
				ctx := t.Context()
				pool, schema := testdb.Partitioned(t)
				config := pool.Config()
				config.ConnConfig.RuntimeParams["default_transaction_isolation"] = level
				pool, err := pgxpool.NewWithConfig(ctx, config)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(pool.Close)
				var log logged
				b := setupIn(t, pool, schema, func(c *outbox.Config) { c.Path, c.Logger = path, log.logger() })
				const callers, each = 4, 8
				var group sync.WaitGroup
				for i := range callers {
					group.Go(func() {
						for range each {
							for {
								err := b.credit(ctx, fmt.Sprint("account-", i%2), 1)
								if err == nil {
									break
								}
								var pgErr *pgconn.PgError
								if !errors.As(err, &pgErr) || pgErr.Code != "40001" || errors.Is(err, rocketflow.ErrCommitUnknown) {
									t.Errorf("got %v, want a serialization error", err)
									return
								}
							}
						}
					})
				}
				group.Wait()
				joined := func(ctx context.Context) error {
					return pgx.BeginFunc(ctx, pool, func(owner pgx.Tx) error {
						tx := b.outbox.Join(owner)
						if err := tx.Publish(ctx, credited{"joined", 1}); err != nil {
							return err
						}
						return tx.Commit(ctx)
					})
				}
				if err := joined(ctx); err != nil && !errors.Is(err, pgx.ErrTxClosed) {
					t.Error(err)
				}
				const want = callers*each + 1
				poll.Until(t, "acks", func() bool { return b.count(t, "outbox_ack") == want })
				if n := len(b.broker.events()); n != want {
					t.Errorf("%d events are out, want %d", n, want)
				}
				if n := log.count("acknowledgements can't be written"); n > 0 {
					t.Errorf("acks were not written %d times", n)
				}
			})
		}
	}
}

// However a transaction is begun and ended, its error says that Postgres refused to serialize it and that it can be run again.
func TestSerializationFailuresKeepTheirCause(t *testing.T) {
	t.Parallel()
	serializable := pgx.TxOptions{IsoLevel: pgx.Serializable}
	publish := func(ctx context.Context, tx rocketflow.Tx) error {
		tx.AfterCommit(func() { t.Error("a function of AfterCommit was called") })
		return tx.Publish(ctx, credited{"a", 1})
	}
	for name, run := range map[string]func(ctx context.Context, b *bundle, doom func(pgx.Tx)) error{
		"Within": func(ctx context.Context, b *bundle, doom func(pgx.Tx)) error {
			return b.outbox.WithinTx(ctx, serializable, func(ctx context.Context, tx rocketflow.Tx) error {
				defer doom(tx)
				return publish(ctx, tx)
			})
		},
		"Begin": func(ctx context.Context, b *bundle, doom func(pgx.Tx)) error {
			tx, err := b.outbox.Begin(ctx, serializable)
			if err != nil {
				return err
			}
			if err := publish(ctx, tx); err != nil {
				return err
			}
			doom(tx)
			return tx.Commit(ctx)
		},
		"a transaction that records eagerly": func(ctx context.Context, b *bundle, doom func(pgx.Tx)) error {
			return b.outbox.WithinTx(ctx, serializable, func(ctx context.Context, tx rocketflow.Tx) error {
				defer doom(tx)
				_ = tx.Conn()
				return publish(ctx, tx)
			})
		},
		"Join": func(ctx context.Context, b *bundle, doom func(pgx.Tx)) error {
			owner, err := b.pool.BeginTx(ctx, serializable)
			if err != nil {
				return err
			}
			tx := b.outbox.Join(owner)
			if err := publish(ctx, tx); err != nil {
				return err
			}
			doom(tx)
			return tx.Commit(ctx)
		},
		"Publish in a joined transaction": func(ctx context.Context, b *bundle, doom func(pgx.Tx)) error {
			owner, err := b.pool.BeginTx(ctx, serializable)
			if err != nil {
				return err
			}
			defer func() { _ = owner.Rollback(ctx) }()
			doom(owner)
			return publish(ctx, b.outbox.Join(owner))
		},
		"JoinSQL": func(ctx context.Context, b *bundle, doom func(pgx.Tx)) error {
			db := stdlib.OpenDBFromPool(b.pool)
			defer func() { _ = db.Close() }()
			owner, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
			if err != nil {
				return err
			}
			tx := b.outbox.JoinSQL(owner)
			if err := tx.Publish(ctx, credited{"a", 1}); err != nil {
				return err
			}
			doom(sqlExec{owner, nil})
			return tx.Commit(ctx)
		},
	} {
		for _, path := range bothPaths {
			t.Run(name+", "+path.String(), func(t *testing.T) {
				t.Parallel()
				ctx := t.Context()
				b := setup(t, func(c *outbox.Config) { c.Path = path })
				if _, err := b.pool.Exec(ctx, "INSERT INTO account VALUES ('x', 0), ('y', 0)"); err != nil {
					t.Fatal(err)
				}
				begin := func() pgx.Tx {
					tx, err := b.pool.BeginTx(ctx, serializable)
					if err != nil {
						t.Fatal(err)
					}
					return tx
				}
				exec := func(tx pgx.Tx, statement string) {
					t.Helper()
					if _, err := tx.Exec(ctx, statement); err != nil {
						t.Fatalf("%s: %v", statement, err)
					}
				}
				reader := begin() // open until the end
				defer func() { _ = reader.Rollback(ctx) }()
				err := run(ctx, b, func(tx pgx.Tx) {
					exec(reader, "SELECT FROM account WHERE id = 'x'")
					exec(tx, "UPDATE account SET cents = 1 WHERE id = 'x'") // after the reader
					exec(tx, "SELECT FROM account WHERE id = 'y'")
					writer := begin()
					exec(writer, "UPDATE account SET cents = 1 WHERE id = 'y'") // after tx
					if err := writer.Commit(ctx); err != nil {                  // so tx can't commit
						t.Fatal(err)
					}
				})
				var pgErr *pgconn.PgError
				if !errors.As(err, &pgErr) || pgErr.Code != "40001" || errors.Is(err, rocketflow.ErrCommitUnknown) {
					t.Errorf("got %v, want a serialization error", err)
				}
				if n := b.count(t, "outbox"); n != 0 {
					t.Errorf("%d rows of events", n)
				}
				poll.Until(t, "all connections given back", func() bool { return b.pool.Stat().AcquiredConns() == 1 }) // the reader's
			})
		}
	}
}

// sqlExec runs statements in a transaction of database/sql.
type sqlExec struct {
	tx *sql.Tx
	pgx.Tx
}

func (s sqlExec) Exec(ctx context.Context, statement string, args ...any) (pgconn.CommandTag, error) {
	_, err := s.tx.ExecContext(ctx, statement, args...)
	return pgconn.CommandTag{}, err
}
