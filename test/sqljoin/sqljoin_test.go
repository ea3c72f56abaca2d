package sqljoin

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/jmoiron/sqlx"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// collector keeps what the relay sends.
type collector struct {
	outbox.Broker
	mu       sync.Mutex
	accounts []string
}

func (c *collector) SendGroup(_ context.Context, ms []broker.Message) []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range ms {
		c.accounts = append(c.accounts, m.ShardingKey)
	}
	return nil
}

func (c *collector) sent() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.accounts)
}

func (*collector) Shard(string, string) int { return 0 }

func (*collector) Subscribe(context.Context, broker.Subscription, broker.Handler) (broker.Consumer, error) {
	return nil, broker.ErrTopicNotFound
}

func (*collector) OpenTransactionProducer(context.Context, string, broker.Checker) (broker.TransactionProducer, error) {
	return transactor{}, nil
}

type transactor struct{ broker.TransactionProducer }

func (transactor) Close(context.Context) error { return nil }

type credited struct {
	Account string `json:"account"`
}

func (c credited) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "accounts", Type: "account.credited", Subject: c.Account}
}

func setup(t *testing.T) (*pgxpool.Pool, *collector, *outbox.Outbox) {
	t.Helper()
	pool, schema := testdb.Partitioned(t)
	if _, err := pool.Exec(t.Context(), "CREATE TABLE account (id text PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	c := &collector{}
	// The sweep is off: events are sent because the outbox was notified of the commit.
	box, err := outbox.New(outbox.Config{Pool: pool, Broker: c, Source: "bank", Schema: schema, Path: outbox.Relay, SweepGrace: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if err := box.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = box.Stop(context.Background()) })
	return pool, c, box
}

// check fails unless those accounts, and no others, are there and sent.
func check(t *testing.T, pool *pgxpool.Pool, c *collector, want ...string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for len(c.sent()) < len(want) && time.Now().Before(deadline) {
		<-time.After(5 * time.Millisecond)
	}
	sent := c.sent()
	slices.Sort(sent)
	if !slices.Equal(sent, want) {
		t.Errorf("sent are %q, want %q", sent, want)
	}
	for _, table := range []string{"account", "outbox"} {
		var n int
		if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil || n != len(want) {
			t.Errorf("%d rows in %s (%v), want %d", n, table, err, len(want))
		}
	}
}

var errNo = errors.New("no")

func TestTransactionsOfSQLXPublish(t *testing.T) {
	t.Parallel()
	pool, c, box := setup(t)
	db := sqlx.NewDb(stdlib.OpenDBFromPool(pool), "pgx")
	t.Cleanup(func() { _ = db.Close() })
	ctx := t.Context()
	for account, commit := range map[string]bool{"a": true, "b": false} {
		tx, err := db.BeginTxx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.NamedExecContext(ctx, "INSERT INTO account VALUES (:account)", map[string]any{"account": account}); err != nil {
			t.Fatal(err)
		}
		joined := box.JoinSQL(tx)
		if err := joined.Publish(ctx, credited{account}); err != nil {
			t.Fatal(err)
		}
		if commit {
			err = joined.Commit(ctx)
		} else {
			err = tx.Rollback()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	check(t, pool, c, "a")
}

func TestTransactionsOfGORMPublish(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]bool{"plain": false, "prepared statements": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool, c, box := setup(t)
			sqlDB := stdlib.OpenDBFromPool(pool)
			t.Cleanup(func() { _ = sqlDB.Close() })
			db, err := gorm.Open(postgres.New(postgres.Config{Conn: sqlDB}), &gorm.Config{PrepareStmt: prepare})
			if err != nil {
				t.Fatal(err)
			}
			ctx := t.Context()
			run := func(account string, then func(tx *gorm.DB) error) error {
				var joined *outbox.SQLTx
				err := db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
					if err := tx.Exec("INSERT INTO account VALUES (?)", account).Error; err != nil {
						return err
					}
					joined = box.JoinSQL(tx.Statement.ConnPool.(outbox.SQL))
					if err := joined.Publish(ctx, credited{account}); err != nil {
						return err
					}
					return then(tx)
				})
				if err == nil {
					joined.Committed(ctx)
				}
				return err
			}
			if err := run("a", func(tx *gorm.DB) error {
				// A nested transaction is a savepoint, which is rolled back.
				err := tx.Transaction(func(tx *gorm.DB) error {
					if err := tx.Exec("INSERT INTO account VALUES ('b')").Error; err != nil {
						return err
					}
					if err := box.JoinSQL(tx.Statement.ConnPool.(outbox.SQL)).Publish(ctx, credited{"b"}); err != nil {
						return err
					}
					return errNo
				})
				if !errors.Is(err, errNo) {
					t.Errorf("nested: %v", err)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if err := run("c", func(*gorm.DB) error { return errNo }); !errors.Is(err, errNo) {
				t.Errorf("got %v", err)
			}
			check(t, pool, c, "a")
		})
	}
}
