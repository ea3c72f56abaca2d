package rocketflowtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/internal/pgclock"
	"github.com/rocketflow/rocketflow/internal/queries"
	"github.com/rocketflow/rocketflow/migrations"
	"github.com/rocketflow/rocketflow/rocketflowfx"
)

// Service is an application of rocketflow's fx modules that runs in an [Env].
type Service struct {
	// Name is the Service of the rocketflowfx.Config.
	Name string
	// Pool is the pool that the service uses.
	Pool *pgxpool.Pool
	// Schema is the database schema of rocketflow's tables.
	Schema string
	// Tx begins transactions that publish events as this service.
	Tx rocketflow.Transactor

	env           *Env
	options       fx.Option
	app           *fx.App // nil while stopped
	groupPrefix   string
	consumers     []string
	partitionsFor time.Time // the day for which partitions exist
}

// Start creates a schema with rocketflow's tables and runs a service in it: all modules of rocketflowfx, and options. The
// schema is also the search path for the tables of the service. Topics of config that don't exist are created. The service
// stops when the test ends.
//
// Of config only Service is required: the Env provides broker, pool, schema and clock.
func (e *Env) Start(config rocketflowfx.Config, options ...fx.Option) *Service {
	e.t.Helper()
	schema := cmp.Or(config.Schema, "service_"+unique())
	config.Schema = schema
	pool := e.Database(schema)
	config.CreateTopics = true
	return e.Run(append([]fx.Option{rocketflowfx.Module, fx.Supply(config, pool)}, options...)...)
}

// Database creates a schema with rocketflow's tables and returns a pool whose search path is that schema. Both end with the
// test. Start does it for its service; use Database together with Configure to assemble a service by hand.
func (e *Env) Database(schema string) *pgxpool.Pool {
	e.t.Helper()
	ctx, cancel := e.timeout()
	defer cancel()
	e.createSchema(ctx, schema)
	pool := e.open(schema)
	if err := migrations.Up(ctx, pool, schema); err != nil {
		e.t.Fatalf("create rocketflow's tables: %v", err)
	}
	if err := pgclock.Adopt(ctx, e.pool, schema); err != nil {
		e.t.Fatal(err)
	}
	return pool
}

// Configure sets in c what the Env provides: the broker's address, the clock, and the listener by which Settle follows the
// consumers. Start and Run do it for their services.
func (e *Env) Configure(c rocketflowfx.Config) rocketflowfx.Config {
	if e.config.Configure != nil {
		c = e.config.Configure(c)
	}
	// On a busy machine a short timeout would have events sent twice.
	c.Outbox.HalfTimeout = cmp.Or(c.Outbox.HalfTimeout, 4*time.Second)
	c.Outbox.EndTimeout = cmp.Or(c.Outbox.EndTimeout, 4*time.Second)
	c.RocketMQ.NameServers = []string{e.broker.Addr()}
	c.RocketMQ.StopQuietPeriod = cmp.Or(c.RocketMQ.StopQuietPeriod, -1) // this broker forgets a consumer with its connection
	c.Clock = e.clock
	c.Handlers.Listener = handlers.Tee(c.Handlers.Listener, e.progress.listener(groupPrefix(c)))
	c.Logger = cmp.Or(c.Logger, e.config.Logger)
	return c
}

// groupPrefix returns what precedes a consumer's name in the name of its group at the broker.
func groupPrefix(c rocketflowfx.Config) string {
	h := c.Handlers
	h.Source = cmp.Or(h.Source, c.Service)
	if c.RocketMQ.Namespace != "" {
		return c.RocketMQ.Namespace + "%" + h.Group("")
	}
	return h.Group("")
}

// Run runs a service from options alone, which have to provide rocketflow's modules, their rocketflowfx.Config, and a pool
// to DatabaseURL. Use it for an application that has its own assembly. The service stops when the test ends.
func (e *Env) Run(options ...fx.Option) *Service {
	e.t.Helper()
	s := &Service{env: e}
	s.options = fx.Options(
		fx.NopLogger,
		fx.Options(options...),
		fx.Decorate(e.Configure),
		fx.Invoke(func(c rocketflowfx.Config, pool *pgxpool.Pool, tx rocketflow.Transactor) {
			s.Name, s.Schema, s.Pool, s.Tx = c.Service, cmp.Or(c.Schema, rocketflow.DefaultSchema), pool, tx
			s.groupPrefix = groupPrefix(c)
		}),
	)
	s.Start()
	e.t.Cleanup(func() {
		if s.Running() {
			s.Stop()
		}
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	e.services = append(e.services, s)
	return s
}

// Stop shuts the service down gracefully, as a deployment does. Settle doesn't wait for the consumers of a stopped service.
func (s *Service) Stop() {
	s.env.t.Helper()
	ctx, cancel := s.env.timeout()
	defer cancel()
	if err := s.app.Stop(ctx); err != nil {
		s.env.t.Errorf("stop %s: %v", s.Name, err)
	}
	s.setApp(nil)
	for _, name := range s.consumers {
		s.env.progress.setAwaited(s.groupPrefix+name, false)
	}
}

// Running reports whether the service runs: it has started and was not stopped. It is safe for concurrent use.
func (s *Service) Running() bool {
	s.env.mu.Lock()
	defer s.env.mu.Unlock()
	return s.app != nil
}

func (s *Service) setApp(app *fx.App) {
	s.env.mu.Lock()
	defer s.env.mu.Unlock()
	s.app = app
}

// Start runs the service again after Stop, as a new process on the same tables: all its objects are built anew, and the
// fields Pool and Tx change with them.
func (s *Service) Start() {
	s.env.t.Helper()
	app := fx.New(s.options)
	ctx, cancel := s.env.timeout()
	defer cancel()
	if err := app.Start(ctx); err != nil {
		s.env.t.Fatalf("start %s: %v", cmp.Or(s.Name, "service"), err)
	}
	s.setApp(app)
	var clocked bool
	err := s.Pool.QueryRow(ctx, "SELECT to_regprocedure('clock_timestamp()') = to_regprocedure($1)", s.env.clockSchema+".clock_timestamp()").Scan(&clocked)
	if err == nil && !clocked {
		err = errors.New("its pool doesn't read the clock of the Env: keep the search_path of Env.DatabaseURL")
	}
	if err == nil {
		err = s.awaitConsumers(ctx)
	}
	if err != nil {
		s.env.t.Fatalf("start %s: %v", s.Name, err)
	}
}

// awaitConsumers makes Settle wait for the service's consumers.
func (s *Service) awaitConsumers(ctx context.Context) error {
	rows, err := s.Pool.Query(ctx, queries.Parse(queriesSQL, s.Schema).Get("Consumers"))
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("list consumers: %w", err)
	}
	s.consumers = names
	for _, name := range names {
		s.env.progress.setAwaited(s.groupPrefix+name, true)
	}
	s.env.progress.unsettled(s.env.broker) // records their subscriptions before a restart makes the broker forget them
	return nil
}

// Within runs fn in a transaction of the service, and fails the test if it does not commit.
func (s *Service) Within(fn func(ctx context.Context, tx rocketflow.Tx) error) {
	s.env.t.Helper()
	ctx, cancel := s.env.timeout()
	defer cancel()
	if err := s.Tx.Within(ctx, fn); err != nil {
		s.env.t.Fatalf("transaction of %s: %v", s.Name, err)
	}
}

// Publish publishes events as the service, in one transaction, and fails the test if it does not commit.
func (s *Service) Publish(payloads ...rocketflow.Payload) {
	s.env.t.Helper()
	s.Within(func(ctx context.Context, tx rocketflow.Tx) error {
		for _, p := range payloads {
			if err := tx.Publish(ctx, p); err != nil {
				return err
			}
		}
		return nil
	})
}
