package rocketflowtest

import (
	"cmp"
	"context"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/pgclock"
	"github.com/rocketflow/rocketflow/internal/pgschema"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// Config changes how a World is. The zero value is a good one.
type Config struct {
	// Broker configures the broker; its Clock is the World's. Defaults differ from the broker's own in being quick where a
	// test would wait: timers are precise to 10 ms, half messages are checked every second from the second one on.
	Broker rocketmqtest.Config

	// Configure changes the configuration of each service, before the World fills in what it knows. Default: leaves it.
	Configure func(rocketflowfx.Config) rocketflowfx.Config

	// Patience is how long Settle and FastForward wait, in the machine's time, for things to come to rest before they fail
	// the test. Default 30 s.
	Patience time.Duration

	// Logger gets what the services and the broker log. Default: discards.
	Logger *slog.Logger
}

// World is a broker, a database, and a clock, with the services that live by them. It ends with the test. Its methods
// are to be called from the test's goroutine, but for Clock, Now and Broker.
type World struct {
	t      testing.TB
	config Config
	broker *rocketmqtest.Server
	clock  *rocketmqtest.Clock
	url    string
	schema string        // of the clock
	pool   *pgxpool.Pool // for the clock and for looking
	book   *book

	mu       sync.Mutex
	services []*Service
}

// New makes a World with nothing in it yet.
func New(t testing.TB, config ...Config) *World {
	t.Helper()
	var c Config
	if len(config) > 0 {
		c = config[0]
	}
	c.Patience = cmp.Or(c.Patience, 30*time.Second)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	c.Broker.TransactionTimeout = cmp.Or(c.Broker.TransactionTimeout, 2*time.Second)
	c.Broker.CheckInterval = cmp.Or(c.Broker.CheckInterval, time.Second)
	c.Broker.CheckMax = cmp.Or(c.Broker.CheckMax, 1000)
	c.Broker.OpBatchInterval = cmp.Or(c.Broker.OpBatchInterval, 100*time.Millisecond)
	c.Broker.TimerPrecision = cmp.Or(c.Broker.TimerPrecision, 10*time.Millisecond)
	c.Broker.Logger = cmp.Or(c.Broker.Logger, c.Logger)
	c.Broker.Clock = new(rocketmqtest.Clock)

	w := &World{t: t, config: c, clock: c.Broker.Clock, book: newBook()}
	w.url = databaseURL(t)
	w.broker = rocketmqtest.RunT(t, c.Broker)
	w.schema = "clock_" + unique()
	w.pool = w.open(w.schema)
	ctx, cancel := w.patience()
	defer cancel()
	w.createSchema(ctx, w.schema)
	if err := pgclock.Install(ctx, w.pool, w.schema); err != nil {
		t.Fatal(err)
	}
	return w
}

// Broker is the World's broker: for its faults, and to look at what it holds. To restart it use Restart.
func (w *World) Broker() *rocketmqtest.Server { return w.broker }

// Restart restarts the broker. Of one that loses messages, do it by this: what is lost is then no longer waited for.
func (w *World) Restart(loss rocketmqtest.Loss) {
	w.t.Helper()
	if err := w.broker.Restart(loss); err != nil {
		w.t.Fatalf("%v", err)
	}
	w.book.reread()
}

// Clock shows the time of the World.
func (w *World) Clock() rocketflow.Clock { return w.clock }

// Now is the time of the World.
func (w *World) Now() time.Time { return w.clock.Now() }

// DatabaseURL returns a connection string for services that open their pool themselves. Its search_path makes Postgres use the
// World's clock, so a service must keep it: a schema of its own goes before it. A service that creates rocketflow's tables
// itself has to be started before the clock is moved for the first time, or their columns' defaults are by the machine's clock
// until it is moved the next time.
func (w *World) DatabaseURL() string {
	path := strings.ReplaceAll(pgclock.SearchPath(w.schema), " ", "") // a space would be encoded as +, which pgx doesn't decode
	u, err := url.Parse(w.url)
	if err != nil || u.Scheme == "" {
		return w.url + " search_path='" + path + "'"
	}
	query := u.Query()
	query.Set("search_path", path)
	u.RawQuery = query.Encode()
	return u.String()
}

// patience bounds what must happen soon.
func (w *World) patience() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), w.config.Patience)
}

// open returns a pool that finds names in schema first, and goes by the World's clock. It closes with the test.
func (w *World) open(schema string) *pgxpool.Pool {
	w.t.Helper()
	config, err := pgxpool.ParseConfig(w.url)
	if err != nil {
		w.t.Fatalf("DATABASE_URL: %v", err)
	}
	path := pgclock.SearchPath(w.schema)
	config.MaxConns = 4 // the World looks and moves the clock, one thing at a time
	if schema != w.schema {
		config.MaxConns = 10
		path = pgx.Identifier{schema}.Sanitize() + ", " + path
	}
	config.ConnConfig.RuntimeParams["search_path"] = path
	config.ConnConfig.RuntimeParams["synchronous_commit"] = "off" // what a crash of Postgres loses is no test's concern
	config.ConnConfig.RuntimeParams["jit"] = "off"                // it would compile for a second what looks through many empty partitions
	ctx, cancel := w.patience()
	defer cancel()
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err == nil {
		err = pool.Ping(ctx)
	}
	if err != nil {
		w.t.Fatalf("connect to PostgreSQL: %v", err)
	}
	w.t.Cleanup(pool.Close)
	return pool
}

// createSchema creates a schema that goes with the test.
func (w *World) createSchema(ctx context.Context, schema string) {
	w.t.Helper()
	if _, err := w.pool.Exec(ctx, "CREATE SCHEMA "+pgx.Identifier{schema}.Sanitize()); err != nil {
		w.t.Fatalf("create schema: %v", err)
	}
	w.t.Cleanup(func() {
		ctx, cancel := w.patience()
		defer cancel()
		if err := pgschema.Drop(ctx, w.url, schema); err != nil {
			w.t.Error(err)
		}
	})
}

func unique() string { return strings.ReplaceAll(uuid.NewString(), "-", "")[:16] }
