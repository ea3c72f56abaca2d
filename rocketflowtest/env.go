package rocketflowtest

import (
	"cmp"
	"context"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/internal/pgclock"
	"github.com/rocketflow/rocketflow/internal/pgschema"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// Config configures an [Env]. The zero value is ready to use.
type Config struct {
	// Broker configures the embedded broker. Its Clock is ignored: the Env has one. Where a test would wait, the defaults are
	// shorter than the broker's own: timers are precise to 10 ms, and half messages are checked every second, for the first
	// time after two seconds.
	Broker rocketmqtest.Config

	// Configure changes the configuration of each service before the Env fills in its own settings.
	// Defaults to no change.
	Configure func(rocketflowfx.Config) rocketflowfx.Config

	// SettleTimeout is how long Settle and FastForward wait, in real time, before they fail the test. It also bounds each
	// other operation of the Env, such as starting a service.
	// Defaults to 30 s.
	SettleTimeout time.Duration

	// Logger receives the log of the services and of the broker.
	// Defaults to a logger that discards everything.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.SettleTimeout = cmp.Or(c.SettleTimeout, 30*time.Second)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	c.Broker.TransactionTimeout = cmp.Or(c.Broker.TransactionTimeout, 2*time.Second)
	c.Broker.CheckInterval = cmp.Or(c.Broker.CheckInterval, time.Second)
	c.Broker.CheckMax = cmp.Or(c.Broker.CheckMax, 1000)
	c.Broker.OpBatchInterval = cmp.Or(c.Broker.OpBatchInterval, 100*time.Millisecond)
	c.Broker.TimerPrecision = cmp.Or(c.Broker.TimerPrecision, 10*time.Millisecond)
	c.Broker.Logger = cmp.Or(c.Broker.Logger, c.Logger)
	c.Broker.Clock = new(rocketmqtest.Clock)
	return c
}

// Env is the environment of a test: a broker, a database, a clock, and the services that were started in it. It ends with
// the test. Call its methods from the test's goroutine, except Broker, Clock and Now, which are safe for concurrent use.
type Env struct {
	t           testing.TB
	config      Config
	broker      *rocketmqtest.Server
	clock       *rocketmqtest.Clock
	serverURL   string        // of PostgreSQL, without a search path
	clockSchema string        // has the functions that read the moved clock
	pool        *pgxpool.Pool // for moving the clock and for queries about all services
	progress    *progress

	mu       sync.Mutex
	services []*Service
}

// New starts a broker and prepares a database for t, and returns an Env without services. At most one config may be given.
// It fails the test under the race detector, unless [SuppressClientRaces] was called.
func New(t testing.TB, config ...Config) *Env {
	t.Helper()
	if raceEnabled && !suppressesRaces(os.Getenv(raceOptions)) {
		t.Fatal(raceHint)
	}
	var c Config
	if len(config) > 0 {
		c = config[0]
	}
	c = c.withDefaults()
	e := &Env{t: t, config: c, clock: c.Broker.Clock, progress: newProgress()}
	e.serverURL = databaseURL(t)
	e.broker = rocketmqtest.RunT(t, c.Broker)
	e.clockSchema = "clock_" + unique()
	e.pool = e.open(e.clockSchema)
	ctx, cancel := e.timeout()
	defer cancel()
	e.createSchema(ctx, e.clockSchema)
	if err := pgclock.Install(ctx, e.pool, e.clockSchema); err != nil {
		t.Fatal(err)
	}
	return e
}

// Broker returns the embedded broker: to inject faults and to see what it holds. To restart it use [Env.RestartBroker].
func (e *Env) Broker() *rocketmqtest.Server { return e.broker }

// RestartBroker restarts the broker. Unlike the broker's own Restart it makes Settle stop waiting for messages that the
// broker has lost.
func (e *Env) RestartBroker(loss rocketmqtest.Loss) {
	e.t.Helper()
	if err := e.broker.Restart(loss); err != nil {
		e.t.Fatalf("%v", err)
	}
	e.progress.reread()
}

// DatabaseURL returns a connection string for services that open their own pool. Its search_path makes SQL find the clock's
// functions, so keep it: put the schema of the service before it. A service that creates rocketflow's tables itself must start
// before the clock is moved for the first time: else the defaults of their columns use the machine's clock until it is moved again.
func (e *Env) DatabaseURL() string {
	path := strings.ReplaceAll(pgclock.SearchPath(e.clockSchema), " ", "") // a space would be encoded as +, which pgx doesn't decode
	u, err := url.Parse(e.serverURL)
	if err != nil || u.Scheme == "" {
		return e.serverURL + " search_path='" + path + "'"
	}
	query := u.Query()
	query.Set("search_path", path)
	u.RawQuery = query.Encode()
	return u.String()
}

// timeout bounds one operation by Config.SettleTimeout.
func (e *Env) timeout() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), e.config.SettleTimeout)
}

// open returns a pool whose search path is schema and then the clock's schema. It closes with the test.
func (e *Env) open(schema string) *pgxpool.Pool {
	e.t.Helper()
	config, err := pgxpool.ParseConfig(e.serverURL)
	if err != nil {
		e.t.Fatalf("DATABASE_URL: %v", err)
	}
	path := pgclock.SearchPath(e.clockSchema)
	config.MaxConns = 4 // the Env runs one statement at a time
	if schema != e.clockSchema {
		config.MaxConns = 10
		path = pgx.Identifier{schema}.Sanitize() + ", " + path
	}
	config.ConnConfig.RuntimeParams["search_path"] = path
	config.ConnConfig.RuntimeParams["synchronous_commit"] = "off" // no test crashes PostgreSQL
	config.ConnConfig.RuntimeParams["jit"] = "off"                // it would spend a second on compiling queries over many empty partitions
	ctx, cancel := e.timeout()
	defer cancel()
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err == nil {
		e.t.Cleanup(pool.Close)
		err = pool.Ping(ctx)
	}
	if err != nil {
		e.t.Fatalf("connect to PostgreSQL: %v", err)
	}
	return pool
}

// createSchema creates a schema and drops it when the test ends.
func (e *Env) createSchema(ctx context.Context, schema string) {
	e.t.Helper()
	if _, err := e.pool.Exec(ctx, "CREATE SCHEMA "+pgx.Identifier{schema}.Sanitize()); err != nil {
		e.t.Fatalf("create schema: %v", err)
	}
	e.t.Cleanup(func() {
		ctx, cancel := e.timeout()
		defer cancel()
		if err := pgschema.Drop(ctx, e.serverURL, schema); err != nil {
			e.t.Error(err)
		}
	})
}

// running lists the services that run.
func (e *Env) running() []*Service {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []*Service
	for _, s := range e.services {
		if s.app != nil {
			all = append(all, s)
		}
	}
	return all
}

func unique() string { return strings.ReplaceAll(uuid.NewString(), "-", "")[:16] }
