package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/metrics"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/testbroker"
	"github.com/rocketflow/rocketflow/test/testdb"
)

type Placed struct {
	ID string `json:"id"`
}

func (p Placed) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "orders", Type: "order.placed", Subject: p.ID}
}

type Overdue struct {
	ID string `json:"id"`
}

func (p Overdue) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "timeouts", Type: "order.overdue", Subject: p.ID}
}

// shop returns the configuration of a service that shares nothing with other tests and has its tables.
func shop(t *testing.T) app.Config {
	t.Helper()
	pool, schema := testdb.Partitioned(t)
	c := shopIn(t, schema)
	c.Pool = pool
	return c
}

func shopIn(t *testing.T, schema string) app.Config {
	t.Helper()
	return app.Config{
		Service:      "shop",
		Schema:       schema,
		Topics:       []broker.Topic{{Name: "orders", Queues: 2}, {Name: "timeouts", Kind: broker.Delay, Queues: 2}},
		CreateTopics: true,
		ListenAddr:   "127.0.0.1:0",
		Logger:       slog.New(slog.DiscardHandler),
		RocketMQ: rocketmq.Config{
			NameServers: testbroker.NameServers(t),
			Namespace:   "test_" + strings.ReplaceAll(uuid.NewString(), "-", "")[:12],
		},
	}
}

func stop(t *testing.T, a *app.App) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := a.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func receive(t *testing.T, from <-chan string, want string) {
	t.Helper()
	select {
	case got := <-from:
		if got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("%s did not happen", want)
	}
}

// From an empty schema: a handler, a timeout, a saga with a deadline, and HTTP, in one service that opens its own pool.
func TestAllPartsWork(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Schema(t)
	c := shopIn(t, schema)
	c.Database, c.Migrate = pool.Config(), true
	c.Saga.TimeoutTopic = "timeouts"
	registry := prometheus.NewRegistry()
	c.Metrics = metrics.New(registry)
	a, err := app.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, a)
	handled, overdue, closed := make(chan string, 9), make(chan string, 9), make(chan string, 9)
	handlers.On(a.Router(), "shop", func(ctx context.Context, tx rocketflow.Tx, p Placed) error {
		tx.AfterCommit(func() { handled <- p.ID })
		return a.Timeouts().Arm(ctx, tx, p.ID, "payment", time.Now().Add(500*time.Millisecond), Overdue(p))
	})
	handlers.On(a.Router(), "shop", func(_ context.Context, tx rocketflow.Tx, p Overdue) error {
		tx.AfterCommit(func() { overdue <- p.ID })
		return nil
	})
	type order struct{ ID string }
	d := saga.Define[order]("order", 1).Initial("open").Final("closed").
		Deadline("open", "closed", func(*order) time.Time { return time.Now().Add(500 * time.Millisecond) },
			func(_ context.Context, tx rocketflow.Tx, o *order) error {
				tx.AfterCommit(func() { closed <- o.ID })
				return nil
			})
	orders, err := saga.Register(a.Sagas(), d)
	if err != nil {
		t.Fatal(err)
	}
	a.Serve(a.ReadyHandler())
	if err := a.Ready(t.Context()); err == nil {
		t.Error("ready before the start")
	}
	for range 2 {
		if err := a.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	err = a.Outbox().Within(t.Context(), func(ctx context.Context, tx rocketflow.Tx) error {
		if err := orders.Begin(ctx, tx, "o-1", order{"o-1"}); err != nil {
			return err
		}
		return tx.Publish(ctx, Placed{"o-1"})
	})
	if err != nil {
		t.Fatal(err)
	}
	receive(t, handled, "o-1")
	receive(t, overdue, "o-1")
	receive(t, closed, "o-1")
	if r := a.Report(t.Context()); r.Status != app.StatusOK || len(r.Problems) != 0 {
		t.Errorf("report is %+v", r)
	}
	counted, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range counted {
		names = append(names, f.GetName())
	}
	for _, name := range []string{"rocketflow_outbox_events_recorded_total", "rocketflow_handlers_events_total", "rocketflow_timeout_changes_total", "rocketflow_saga_transitions_total"} {
		if !slices.Contains(names, name) {
			t.Errorf("%s is not counted", name)
		}
	}
	if status, r := get(t, "http://"+a.Addr()); status != http.StatusOK || r.Status != app.StatusOK || r.Service != "shop" {
		t.Errorf("response is %d, %+v", status, r)
	}
	stop(t, a)
	if err := a.Ready(t.Context()); err == nil {
		t.Error("ready after the stop")
	}
	if err := a.Start(t.Context()); !errors.Is(err, app.ErrStopped) {
		t.Errorf("started again: %v", err)
	}
	if conn, err := net.Dial("tcp", a.Addr()); err == nil {
		conn.Close()
		t.Error("listens after the stop")
	}
}

func get(t *testing.T, url string) (status int, r app.Report) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &r); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return response.StatusCode, r
}

// Without a broker the service is ready and transactions commit; the report says what is degraded. Without the database it
// isn't ready.
func TestReadiness(t *testing.T) {
	t.Parallel()
	c := shop(t)
	c.RocketMQ.NameServers = []string{unusedAddress(t)}
	pool, err := pgxpool.NewWithConfig(t.Context(), c.Pool.Config())
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	c.Pool = pool
	a, err := app.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { // the database is away then, which the outbox has a right to say
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = a.Stop(ctx)
	}()
	mux := http.NewServeMux()
	mux.Handle("GET /readyz", a.ReadyHandler())
	mux.Handle("GET /livez", a.LiveHandler())
	a.Serve(mux)
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	err = a.Outbox().Within(t.Context(), func(ctx context.Context, tx rocketflow.Tx) error { return tx.Publish(ctx, Placed{"o-1"}) })
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Ready(t.Context()); err != nil {
		t.Errorf("not ready without a broker: %v", err)
	}
	status, r := get(t, "http://"+a.Addr()+"/readyz")
	if status != http.StatusOK || r.Status != app.StatusDegraded || len(r.Problems) == 0 || r.Problems[0].Part != app.PartBroker || r.Backlog.Events != 1 {
		t.Errorf("response is %d, %+v", status, r)
	}

	pool.Close()
	if err := a.Ready(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "database: ") {
		t.Errorf("without a database: %v", err)
	}
	status, r = get(t, "http://"+a.Addr()+"/readyz")
	if status != http.StatusServiceUnavailable || r.Status != app.StatusNotReady || r.Problems[0].Part != app.PartDatabase {
		t.Errorf("response is %d, %+v", status, r)
	}
	if status, _ := get(t, "http://"+a.Addr()+"/livez"); status != http.StatusOK {
		t.Errorf("not alive: %d", status)
	}
}

// unusedAddress returns an address without a listener.
func unusedAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// An App that can't start names the part and leaves nothing open.
func TestStartErrors(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	for _, c := range []struct {
		name   string
		change func(*app.Config)
		part   app.Part
		want   string // in the error's text
	}{
		{"the database can't be reached", func(c *app.Config) {
			c.Database = c.Pool.Config()
			c.Database.ConnConfig.Host, c.Database.ConnConfig.Port, c.Database.ConnConfig.Fallbacks = "127.0.0.1", 1, nil
			c.Pool = nil
		}, app.PartDatabase, "127.0.0.1"},
		{"the tables are missing", func(c *app.Config) { c.Schema = "nowhere" }, app.PartDatabase, "rocketflow migrate up"},
		{"a topic is missing", func(c *app.Config) { c.CreateTopics = false }, app.PartBroker, "ROCKETFLOW_CREATE_TOPICS"},
		{"a broker is required", func(c *app.Config) {
			c.RequireBroker, c.RocketMQ.NameServers = true, []string{"127.0.0.1:1"}
		}, app.PartBroker, "127.0.0.1:1"},
		{"the schema is another's", func(c *app.Config) {
			if _, err := c.Pool.Exec(context.Background(), "UPDATE "+c.Schema+".installation SET source = 'other'"); err != nil {
				t.Error(err)
			}
			c.Service = "thief"
		}, app.PartOutbox, "belongs to"},
		{"the address is taken", func(c *app.Config) { c.ListenAddr = taken.Addr().String() }, app.PartHTTP, taken.Addr().String()},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			config := shop(t)
			if c.part == app.PartOutbox { // it has an owner
				a, err := app.New(config)
				if err != nil {
					t.Fatal(err)
				}
				if err := a.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				stop(t, a)
			}
			c.change(&config)
			a, err := app.New(config)
			if err == nil {
				a.Serve(http.NotFoundHandler())
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				err = a.Start(ctx)
				stop(t, a)
				if again := a.Start(t.Context()); !errors.Is(again, app.ErrStopped) {
					t.Errorf("started after that: %v", again)
				}
			}
			var start *app.StartError
			if !errors.As(err, &start) || start.Part != c.part || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want one of %s that says %q", err, c.part, c.want)
			}
		})
	}
}

func TestConfigErrorsNameTheField(t *testing.T) {
	t.Parallel()
	good := app.Config{Service: "shop", Database: &pgxpool.Config{}}
	for field, change := range map[string]func(*app.Config){
		"app.Config.Service":     func(c *app.Config) { c.Service = "" },
		"app.Config.Database":    func(c *app.Config) { c.Database = nil },
		"app.Config.ListenAddr":  func(c *app.Config) { c.ListenAddr = "nonsense" },
		"app.Config.StopTimeout": func(c *app.Config) { c.StopTimeout = -1 },
	} {
		c := good
		change(&c)
		_, err := app.New(c)
		var f *rocketflow.FieldError
		if !errors.As(err, &f) || f.Field != field {
			t.Errorf("error is %v, want one of %s", err, field)
		}
	}
}

// A pool that the lanes alone can hold is a warning with the number that is wanted.
func TestSmallPoolIsAWarning(t *testing.T) {
	t.Parallel()
	c := shop(t)
	c.Database, c.Pool = c.Pool.Config(), nil
	c.Database.MaxConns = 10
	var log syncBuffer
	c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	a, err := app.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, a)
	handlers.On(a.Router(), "shop", func(context.Context, rocketflow.Tx, Placed) error { return nil })
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text := log.String(); !strings.Contains(text, "max_conns=10") || !strings.Contains(text, "wanted=14") {
		t.Errorf("log is %s", text)
	}
}

type syncBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// Run ends in order when its context ends, and at a signal.
func TestRun(t *testing.T) { // not parallel: the signal is the process'
	for _, end := range []string{"context", "signal"} {
		t.Run(end, func(t *testing.T) {
			a, err := app.New(shop(t))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- a.Run(ctx) }()
			poll.Succeeds(t, 20*time.Second, func() error { return a.Ready(ctx) })
			if end == "context" {
				cancel()
			} else if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("Run did not end")
			}
			if err := a.Ready(t.Context()); err == nil {
				t.Error("ready after the end")
			}
		})
	}
}

// Start and Stop in any order and number, from several goroutines.
func TestStopIsIdempotent(t *testing.T) {
	t.Parallel()
	a, err := app.New(shop(t))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() {
			if i%2 == 0 {
				if err := a.Start(t.Context()); err != nil && !errors.Is(err, app.ErrStopped) {
					t.Errorf("start: %v", err)
				}
			} else {
				stop(t, a)
			}
		})
	}
	all.Wait()
	stop(t, a)
}
