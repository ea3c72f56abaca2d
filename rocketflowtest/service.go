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

// Service is a running application of rocketflow's modules.
type Service struct {
	// Name is that of the Config.
	Name string
	// Pool is what the service uses.
	Pool *pgxpool.Pool
	// Schema holds rocketflow's tables.
	Schema string
	// Tx begins transactions that publish.
	Tx rocketflow.Transactor

	world       *World
	options     fx.Option
	app         *fx.App // nil: stopped
	groupPrefix string
	consumers   []string
	ready       time.Time // the day for which its partitions are made
}

// Start gives a service a schema with rocketflow's tables, which is also the search path for its own, and runs it: all
// modules of rocketflowfx and the options. What is missing of its topics is created. It stops when the test ends.
//
// Of config only Service is required: broker, pool, schema and clock are the World's.
func (w *World) Start(config rocketflowfx.Config, options ...fx.Option) *Service {
	w.t.Helper()
	schema := cmp.Or(config.Schema, "service_"+unique())
	config.Schema = schema
	pool := w.Database(schema)
	config.CreateTopics = true
	return w.Run(append([]fx.Option{rocketflowfx.Module, fx.Supply(config, pool)}, options...)...)
}

// Database creates a schema with rocketflow's tables in it, which goes with the test, and returns a pool that finds names
// there first. It is what Start gives to a service; take one, and what Configure returns, to put the parts together by
// hand.
func (w *World) Database(schema string) *pgxpool.Pool {
	w.t.Helper()
	ctx, cancel := w.patience()
	defer cancel()
	w.createSchema(ctx, schema)
	pool := w.open(schema)
	if err := migrations.Up(ctx, pool, schema); err != nil {
		w.t.Fatalf("make rocketflow's tables: %v", err)
	}
	if err := pgclock.Adopt(ctx, w.pool, schema); err != nil {
		w.t.Fatal(err)
	}
	return pool
}

// Configure fills in what the World knows: its broker, its clock, and listeners by which it sees when all is at rest.
// Start and Run do it for their services.
func (w *World) Configure(c rocketflowfx.Config) rocketflowfx.Config {
	if w.config.Configure != nil {
		c = w.config.Configure(c)
	}
	// A machine that is busy with other tests should not have events sent twice for want of an answer in time.
	c.Outbox.HalfTimeout = cmp.Or(c.Outbox.HalfTimeout, 4*time.Second)
	c.Outbox.EndTimeout = cmp.Or(c.Outbox.EndTimeout, 4*time.Second)
	c.RocketMQ.NameServers = []string{w.broker.Addr()}
	c.RocketMQ.StopQuietPeriod = cmp.Or(c.RocketMQ.StopQuietPeriod, -1) // this broker forgets who is gone
	c.Clock = w.clock
	c.Handlers.Listener = handlers.Tee(c.Handlers.Listener, w.book.listener(groupPrefix(c)))
	c.Logger = cmp.Or(c.Logger, w.config.Logger)
	return c
}

// groupPrefix is what stands before a consumer's name in the name of its group at the broker.
func groupPrefix(c rocketflowfx.Config) string {
	h := c.Handlers
	h.Source = cmp.Or(h.Source, c.Service)
	if c.RocketMQ.Namespace != "" {
		return c.RocketMQ.Namespace + "%" + h.Group("")
	}
	return h.Group("")
}

// Run runs a service that brings everything itself: rocketflow's modules, their Config, and a pool to DatabaseURL. It
// stops when the test ends.
func (w *World) Run(options ...fx.Option) *Service {
	w.t.Helper()
	s := &Service{world: w}
	s.options = fx.Options(
		fx.NopLogger,
		fx.Options(options...),
		fx.Decorate(w.Configure),
		fx.Invoke(func(c rocketflowfx.Config, pool *pgxpool.Pool, tx rocketflow.Transactor) {
			s.Name, s.Schema, s.Pool, s.Tx = c.Service, cmp.Or(c.Schema, rocketflow.DefaultSchema), pool, tx
			s.groupPrefix = groupPrefix(c)
		}),
	)
	s.Resume()
	w.t.Cleanup(func() {
		if s.Running() {
			s.Stop()
		}
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.services = append(w.services, s)
	return s
}

// Stop ends the service in order, as a deployment does.
func (s *Service) Stop() {
	s.world.t.Helper()
	ctx, cancel := s.world.patience()
	defer cancel()
	if err := s.app.Stop(ctx); err != nil {
		s.world.t.Errorf("stop %s: %v", s.Name, err)
	}
	s.set(nil)
	for _, name := range s.consumers {
		s.world.book.know(s.groupPrefix+name, false)
	}
}

// Running tells whether the service runs: it was neither stopped nor did it fail to start.
func (s *Service) Running() bool {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	return s.app != nil
}

func (s *Service) set(app *fx.App) {
	s.world.mu.Lock()
	defer s.world.mu.Unlock()
	s.app = app
}

// Resume runs the service again after Stop, on the same tables.
func (s *Service) Resume() {
	s.world.t.Helper()
	app := fx.New(s.options)
	ctx, cancel := s.world.patience()
	defer cancel()
	if err := app.Start(ctx); err != nil {
		s.world.t.Fatalf("start %s: %v", cmp.Or(s.Name, "service"), err)
	}
	s.set(app)
	var ours bool
	err := s.Pool.QueryRow(ctx, "SELECT to_regprocedure('clock_timestamp()') = to_regprocedure($1)", s.world.schema+".clock_timestamp()").Scan(&ours)
	if err == nil && !ours {
		err = errors.New("its pool doesn't go by the World's clock: keep the search_path of World.DatabaseURL")
	}
	if err == nil {
		err = s.known(ctx)
	}
	if err != nil {
		s.world.t.Fatalf("start %s: %v", s.Name, err)
	}
}

// known has the service's consumers waited for.
func (s *Service) known(ctx context.Context) error {
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
		s.world.book.know(s.groupPrefix+name, true)
	}
	s.world.book.left(s.world.broker) // what they read is known from here on, whatever befalls the broker
	return nil
}

// Within runs fn in a transaction, and fails the test if that can't be committed.
func (s *Service) Within(fn func(ctx context.Context, tx rocketflow.Tx) error) {
	s.world.t.Helper()
	ctx, cancel := s.world.patience()
	defer cancel()
	if err := s.Tx.Within(ctx, fn); err != nil {
		s.world.t.Fatalf("transaction of %s: %v", s.Name, err)
	}
}

// Publish publishes events as the service, in one transaction.
func (s *Service) Publish(payloads ...rocketflow.Payload) {
	s.world.t.Helper()
	s.Within(func(ctx context.Context, tx rocketflow.Tx) error {
		for _, p := range payloads {
			if err := tx.Publish(ctx, p); err != nil {
				return err
			}
		}
		return nil
	})
}
