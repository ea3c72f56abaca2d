//go:build !race

package acceptance

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/timeout"
)

// roleWithSearchPath creates a superuser whose default search path is searchPath, and returns a pool that connects as it.
func roleWithSearchPath(t *testing.T, searchPath string) *pgxpool.Pool {
	t.Helper()
	direct := testdb.Open(t, testdb.URL(t), "public")
	role := "pooled_" + uuid.NewString()[:8]
	execute := func(sql string) {
		if _, err := direct.Exec(context.Background(), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	execute(fmt.Sprintf("CREATE ROLE %[1]s LOGIN SUPERUSER; ALTER ROLE %[1]s SET search_path = %[2]s", role, searchPath))
	t.Cleanup(func() { execute(fmt.Sprintf("REASSIGN OWNED BY %[1]s TO CURRENT_USER; DROP ROLE %[1]s", role)) })
	return testdb.Like(t, direct, func(c *pgxpool.Config) {
		c.ConnConfig.User = role
		clear(c.ConnConfig.RuntimeParams)
	})
}

type placed struct {
	ID string `json:"id"`
}

func (p placed) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "orders", Type: "order.placed", Subject: p.ID}
}

type expired struct {
	ID string `json:"id"`
}

func (e expired) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "order-timeouts", Type: "order.expired", Subject: e.ID}
}

// TestAllPartsWorkThroughPgBouncer runs two processes of a service through PgBouncer: nothing depends on a session's state.
// In transaction mode pgx may not keep prepared statements.
func TestAllPartsWorkThroughPgBouncer(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"session", "transaction"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := rocketflowtest.New(t)
			schema := "pooled_" + uuid.NewString()[:8]
			w.Database(schema) // migrated directly
			clocked, err := url.Parse(w.DatabaseURL())
			if err != nil {
				t.Fatal(err)
			}
			role := roleWithSearchPath(t, pgx.Identifier{schema}.Sanitize()+", "+clocked.Query().Get("search_path"))
			pool := testdb.Like(t, testdb.ThroughPgBouncer(t, role, mode), func(c *pgxpool.Config) {
				c.MaxConns = 12
				if mode == "transaction" {
					c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
				}
			})
			var (
				mu      sync.Mutex
				handled = map[string]int{}
				failed  bool
				box     *outbox.Outbox
				timer   *timeout.Scheduler
			)
			count := func(tx rocketflow.Tx, id string) {
				tx.AfterCommit(func() {
					mu.Lock()
					defer mu.Unlock()
					handled[id]++
				})
			}
			service := func(into ...any) *rocketflowtest.Service {
				c := rocketflowfx.Config{Service: "orders", Schema: schema, Topics: []broker.Topic{{Name: "orders", Queues: 4}, {Name: "order-timeouts", Queues: 4}}, CreateTopics: true}
				return w.Run(rocketflowfx.Module, fx.Supply(c, pool), fx.Populate(into...), fx.Invoke(func(r *handlers.Router, s *timeout.Scheduler) {
					handlers.On(r, "ledger", func(ctx context.Context, tx rocketflow.Tx, p placed) error {
						mu.Lock()
						first := p.ID == "o-3" && !failed
						failed = failed || first
						mu.Unlock()
						if first {
							return errors.New("the first attempt fails")
						}
						count(tx, p.ID)
						return s.Arm(ctx, tx, p.ID, "expiry", w.Now().Add(time.Hour), expired(p))
					})
					handlers.On(r, "ledger", func(ctx context.Context, tx rocketflow.Tx, e expired) error {
						count(tx, "expired "+e.ID)
						return nil
					})
				}))
			}
			s := service(&box, &timer)
			service(&box, &timer) // another process of the service: one of them sweeps
			for i := range 6 {
				s.Publish(placed{fmt.Sprintf("o-%d", i)})
			}
			// What a process left that died right after its commit.
			inner, err := pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := box.Join(inner).Publish(t.Context(), placed{"o-6"}); err != nil {
				t.Fatal(err)
			}
			if err := inner.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.FastForward(time.Minute)
			w.FastForward(2 * time.Hour)
			w.Settle()
			mu.Lock()
			defer mu.Unlock()
			for i := range 7 {
				id := fmt.Sprintf("o-%d", i)
				if handled[id] != 1 || handled["expired "+id] != 1 {
					t.Errorf("%s was handled %d times, its timeout %d times", id, handled[id], handled["expired "+id])
				}
			}
		})
	}
}
