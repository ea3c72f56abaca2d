package timeout

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/installation"
	"github.com/rocketflow/rocketflow/internal/queries"
	"github.com/rocketflow/rocketflow/internal/repeat"
)

//go:embed queries.sql
var sqlFile string

// Scheduler arms timeouts and, between Start and Stop, hands them over to the broker. All methods are safe for concurrent
// use. Arm, ArmIfAbsent, Move, Disarm, Get and Fence also work while the scheduler is stopped: the timeouts are then handed
// over by another process of the service, or after the next Start.
type Scheduler struct {
	cfg      Config
	repeated *repeat.Logger // the handler behind cfg.Logger; flushed by Stop
	sql      queries.Set
	database atomic.Pointer[string] // the id of the database; nil until it was read
	pending  chan handOver          // armed and committed in this process, not yet handed over

	next       nextSweep
	rejections rejections // of timers, by the broker

	lifecycle sync.Mutex       // held by Start and Stop from beginning to end
	group     background.Group // its context ends when Stop begins
	abort     func()           // ends the requests and statements of the goroutines; set by Start
}

// New returns a stopped Scheduler. It returns a *rocketflow.FieldError if a field of c can't be used. It doesn't connect to
// Postgres or to the broker.
func New(c Config) (*Scheduler, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	c.Listener = c.Listener.guarded(&guard.Reporter{Logger: c.Logger, Part: "timeout"})
	repeated := repeat.New(c.Logger, repeat.Config{})
	c.Logger = repeated.Logger
	return &Scheduler{
		cfg: c, repeated: repeated, sql: queries.Parse(sqlFile, c.Schema), pending: make(chan handOver, c.MaxPending),
		next: nextSweep{wake: make(chan struct{}, 1)},
	}, nil
}

// Start begins to hand timeouts over to the broker. It returns an error that matches rocketflow.ErrNotMigrated if
// rocketflow's tables are missing, and a *rocketflow.SchemaOwnedError if they belong to another service. ctx bounds the
// start, not the work. Starting a started scheduler does nothing.
func (s *Scheduler) Start(ctx context.Context) error {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	return s.group.Start(ctx, func(work context.Context) error {
		database, err := installation.Claim(ctx, s.cfg.Pool, s.cfg.Schema, s.cfg.Source)
		if err != nil {
			return fmt.Errorf("start timeouts: %w", err)
		}
		s.database.Store(&database)
		requests, abort := context.WithCancel(context.WithoutCancel(work))
		s.abort = abort
		outcomes := make(chan outcome, s.cfg.Workers)
		s.group.Go(func(stopping context.Context) { s.handOverPending(stopping, requests, outcomes) })
		s.group.Go(func(context.Context) { s.recordOutcomes(requests, outcomes) })
		s.group.Go(func(stopping context.Context) { s.runSweeps(stopping, requests) })
		return nil
	})
}

// Stop hands over the timeouts that wait in memory, and returns when all goroutines have ended. If ctx ends before that,
// Stop aborts the requests that are under way and returns the context's error; the sweep of another process, or of the
// next start, hands over what is left. Stopping a stopped scheduler does nothing.
func (s *Scheduler) Stop(ctx context.Context) error {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	if !s.group.Running() {
		return nil
	}
	defer s.repeated.Flush()
	err := s.group.Stop(ctx)
	s.abort()
	if err != nil {
		// Aborted goroutines end at once.
		_ = s.group.Stop(context.WithoutCancel(ctx))
		return fmt.Errorf("stop timeouts: %w", err)
	}
	return nil
}

// databaseID returns the id of the database that the timeouts live in. It reads it when it is first needed, because Fence
// works without Start.
func (s *Scheduler) databaseID(ctx context.Context, db Querier) (string, error) {
	if id := s.database.Load(); id != nil {
		return *id, nil
	}
	var id string
	err := db.QueryRow(ctx, s.sql.Get("DatabaseID")).Scan(&id)
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == "42P01" { // undefined_table
		return "", fmt.Errorf("schema %q: %w", s.cfg.Schema, rocketflow.ErrNotMigrated)
	}
	if err != nil {
		return "", fmt.Errorf("read the id of the database: %w", err)
	}
	s.database.Store(&id)
	return id, nil
}
