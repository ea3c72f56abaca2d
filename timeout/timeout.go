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
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/installation"
	"github.com/rocketflow/rocketflow/internal/queries"
	"github.com/rocketflow/rocketflow/internal/repeat"
)

//go:embed queries.sql
var sqlFile string

// Scheduler arms timeouts and sees to it that they fire. All methods are safe for concurrent use. Arm, Disarm, Move and
// Fence work whether or not it is started: what a stopped scheduler arms, any other hands over.
type Scheduler struct {
	cfg      Config
	repeated *repeat.Logger // what cfg.Logger writes to, flushed by Stop
	sql      queries.Set
	database atomic.Pointer[string] // the installation's id, once it was read
	pending  chan job               // armed and committed here, on the way to the broker

	running atomic.Bool // whether workers take from pending

	mu  sync.Mutex // held by Start and Stop throughout
	run *run       // nil while stopped
}

// New checks the configuration. It doesn't touch Postgres or the broker yet.
func New(c Config) (*Scheduler, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("timeout: %w", err)
	}
	c.Listener = c.Listener.guarded(&guard.Reporter{Logger: c.Logger, Part: "timeout"})
	repeated := repeat.New(c.Logger, repeat.Config{})
	c.Logger = repeated.Logger
	return &Scheduler{cfg: c, repeated: repeated, sql: queries.Parse(sqlFile, c.Schema), pending: make(chan job, c.MaxPending)}, nil
}

// run is what one Start started.
type run struct {
	quit   chan struct{} // closed: finish what is in memory, begin nothing new
	cancel context.CancelFunc
	done   chan struct{} // closed once every goroutine ended
}

// Start begins to hand timeouts over. ctx bounds the start only. Starting a started scheduler does nothing.
func (s *Scheduler) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run != nil {
		return nil
	}
	database, err := installation.Claim(ctx, s.cfg.Pool, s.cfg.Schema, s.cfg.Source)
	if err != nil {
		return fmt.Errorf("start timeouts: %w", err)
	}
	s.database.Store(&database)
	// The work outlives ctx: fx, for one, ends it as soon as the application has started.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := &run{quit: make(chan struct{}), cancel: cancel, done: make(chan struct{})}
	marks := make(chan mark, s.cfg.Workers)
	var workers, marker, sweeper sync.WaitGroup
	for range s.cfg.Workers {
		workers.Go(func() { s.work(work, r.quit, marks) })
	}
	sweeper.Go(func() { s.sweepLoop(work, r.quit) })
	marker.Go(func() { s.markLoop(work, marks) })
	go func() {
		workers.Wait()
		close(marks)
		marker.Wait()
		sweeper.Wait()
		cancel()
		close(r.done)
	}()
	s.run = r
	s.running.Store(true)
	return nil
}

// Stop hands over what is in memory and ends. When ctx ends before that, the rest is left to the sweep of another
// process, or of the next start. Stopping a stopped scheduler does nothing.
func (s *Scheduler) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run == nil {
		return nil
	}
	defer s.repeated.Flush()
	r := s.run
	s.run = nil
	s.running.Store(false)
	close(r.quit)
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		r.cancel()
		<-r.done
		return fmt.Errorf("stop timeouts: %w", ctx.Err())
	}
}

// installation returns the id of the database that the timeouts live in. It is read when it is first needed: Fence works
// without Start.
func (s *Scheduler) installation(ctx context.Context, db Querier) (string, error) {
	if id := s.database.Load(); id != nil {
		return *id, nil
	}
	var id string
	err := db.QueryRow(ctx, s.sql.Get("Installation")).Scan(&id)
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == "42P01" { // undefined_table
		return "", fmt.Errorf("schema %q: %w", s.cfg.Schema, rocketflow.ErrNotMigrated)
	}
	if err != nil {
		return "", fmt.Errorf("read installation: %w", err)
	}
	s.database.Store(&id)
	return id, nil
}
