package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

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
				pool, schema := testdb.Migrated(t)
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
