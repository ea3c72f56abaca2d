//go:build !race

package acceptance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
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

// bouncer starts a PgBouncer before DATABASE_URL, for a role whose search path is given, and returns a pool's
// configuration for it.
func bouncer(t *testing.T, mode, searchPath string) *pgxpool.Config {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer"
	}
	if _, err := os.Stat(program); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("pgbouncer is not installed")
		}
		t.Skip("pgbouncer is not installed: apt-get install pgbouncer")
	}
	config, err := pgxpool.ParseConfig(testdb.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	direct, err := pgxpool.NewWithConfig(t.Context(), config.Copy())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(direct.Close)
	role := "bounced_" + uuid.NewString()[:8]
	onServer := func(sql string) {
		if _, err := direct.Exec(context.Background(), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	onServer(fmt.Sprintf("CREATE ROLE %[1]s LOGIN SUPERUSER; ALTER ROLE %[1]s SET search_path = %[2]s", role, searchPath))
	t.Cleanup(func() { onServer(fmt.Sprintf("REASSIGN OWNED BY %[1]s TO CURRENT_USER; DROP ROLE %[1]s", role)) })

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	password := ""
	if config.ConnConfig.Password != "" {
		password = " password=" + config.ConnConfig.Password
	}
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) { // it runs as another user
		_ = os.Chmod(d, 0o777)
	}
	file := filepath.Join(dir, "pgbouncer.ini")
	err = os.WriteFile(file, fmt.Appendf(nil, `[databases]
%[1]s = host=%[2]s port=%[3]d dbname=%[1]s user=%[4]s%[5]s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %[6]d
auth_type = any
unix_socket_dir =
pool_mode = %[7]s
max_client_conn = 200
default_pool_size = 20
logfile = %[8]s
`, config.ConnConfig.Database, config.ConnConfig.Host, config.ConnConfig.Port, role, password, port, mode, filepath.Join(dir, "log")), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{file}
	if os.Getuid() == 0 {
		args = []string{"-u", "nobody", file}
	}
	cmd := exec.Command(program, args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("pgbouncer: %s", &said)
		}
	})
	config.ConnConfig.Host, config.ConnConfig.Port, config.ConnConfig.Fallbacks = "127.0.0.1", uint16(port), nil
	eventually(t, 10*time.Second, "pgbouncer listens", func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return config
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

// All parts work through PgBouncer: nothing needs a session. In transaction mode pgx may not keep prepared statements.
func TestThroughPgBouncer(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"session", "transaction"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := rocketflowtest.New(t)
			schema := "bounced_" + uuid.NewString()[:8]
			w.Database(schema) // migrated directly
			clocked, err := url.Parse(w.DatabaseURL())
			if err != nil {
				t.Fatal(err)
			}
			config := bouncer(t, mode, pgx.Identifier{schema}.Sanitize()+", "+clocked.Query().Get("search_path"))
			if mode == "transaction" {
				config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
			}
			config.MaxConns = 12
			pool, err := pgxpool.NewWithConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
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
