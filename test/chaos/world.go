package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/pgclock"
	"github.com/rocketflow/rocketflow/migrations"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// world is a test environment: a schema, a clock, a broker (of its own, or shared), and the processes of a service that use
// them. It runs one schedule after the other.
type world struct {
	config   worldConfig
	name     string
	server   *rocketmqtest.Server // nil on a real broker
	clock    *rocketmqtest.Clock  // nil on a real broker: the machine's clock is used
	pool     *pgxpool.Pool
	ledger   ledger
	slots    []*processSlot
	lockBase int64
	cleanups sync.WaitGroup

	nameServer, namespace string // of the broker

	mu             sync.Mutex
	log            []string          // for the report of a schedule that fails
	types          map[string]bool   // event types besides baseEventType that a process has handled
	afterCommitted map[string]int    // how often AfterCommit was called for an event
	faultCounts    map[faultKind]int // how often a kind of fault took effect, since takeFaultCounts
}

type worldConfig struct {
	database    string        // URL
	nameServer  string        // of a real broker; empty: an embedded one
	patience    time.Duration // how long a schedule may take to become quiet after its last fault
	faults      []faultKind
	transport   string // client-go, own, or mixed: every other process has the own transport
	steadyClock bool   // move the clock only when nothing happens, so that no timeout or sweep overtakes what is in flight
}

const (
	pollInterval = 8 * time.Millisecond
	tryFor       = 4 * time.Minute // how long Postgres and the broker may be away: longer than a restart on a busy machine
)

var paths = [publishers]outbox.Path{outbox.Auto, outbox.HalfMessages, outbox.Relay}

func openWorld(ctx context.Context, c worldConfig) (*world, error) {
	w := &world{config: c, name: "chaos_" + strings.ReplaceAll(uuid.NewString(), "-", "")[:12], lockBase: rand.Int64N(1<<40) << 16, types: map[string]bool{}, afterCommitted: map[string]int{}, faultCounts: map[faultKind]int{}}
	w.ledger = openLedger(w.name)
	if err := w.open(ctx); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *world) open(ctx context.Context) (err error) {
	c := w.config
	path := pgx.Identifier{w.name}.Sanitize()
	nameServer, namespace := c.nameServer, w.name
	if nameServer == "" {
		w.clock = new(rocketmqtest.Clock)
		path = pgclock.SearchPath(w.name)
		w.server, err = rocketmqtest.New(rocketmqtest.Config{
			Clock: w.clock, TransactionTimeout: 2 * time.Second, CheckInterval: time.Second, CheckMax: 8, OpBatchInterval: 500 * time.Millisecond,
		})
		if err != nil {
			return err
		}
		nameServer, namespace = w.server.Addr(), ""
	}
	w.nameServer, w.namespace = nameServer, namespace
	config, err := pgxpool.ParseConfig(c.database)
	if err != nil {
		return err
	}
	config.ConnConfig.RuntimeParams["search_path"] = path
	config.MaxConns = 12
	if w.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return err
	}
	if err := w.try(ctx, w.createTables); err != nil {
		return err
	}
	if err := w.try(ctx, func(ctx context.Context) error { return createTopics(ctx, nameServer, namespace) }); err != nil {
		return err
	}
	for i := range publishers + consumers {
		s := &processSlot{world: w, name: fmt.Sprintf("%s-%d", w.name, i), settings: settings{
			Database: c.database, SearchPath: path, Schema: w.name, NameServer: nameServer, Namespace: namespace, Real: w.server == nil, Faults: c.faults,
			Own: c.transport == "own" || c.transport == "mixed" && i%2 == 1,
		}}
		if s.settings.Consumes = i >= publishers; !s.settings.Consumes {
			s.settings.Path = paths[i]
		}
		if s.settings.Path == outbox.Relay && !c.steadyClock {
			s.settings.Buffer = 2
		}
		w.slots = append(w.slots, s)
	}
	return w.restartEnded(ctx)
}

func (w *world) createTables(ctx context.Context) error {
	schema := pgx.Identifier{w.name}.Sanitize()
	if _, err := w.pool.Exec(ctx, "DROP SCHEMA IF EXISTS "+schema+" CASCADE; CREATE SCHEMA "+schema); err != nil {
		return err
	}
	if w.clock != nil {
		if err := pgclock.Install(ctx, w.pool, w.name); err != nil {
			return err
		}
	}
	if err := migrations.Up(ctx, w.pool, w.name); err != nil {
		return err
	}
	if w.clock != nil {
		if err := pgclock.Adopt(ctx, w.pool, w.name); err != nil {
			return err
		}
	}
	_, err := w.pool.Exec(ctx, w.ledger.sql.Get("Tables"))
	return err
}

func createTopics(ctx context.Context, nameServer, namespace string) error {
	client, err := rocketmq.Open(ctx, rocketmq.Config{NameServers: []string{nameServer}, Namespace: namespace, Service: "chaos", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer client.Close(ctx)
	return client.CreateTopics(ctx,
		broker.Topic{Name: topicFirst, Queues: 4, Kind: broker.Transaction}, broker.Topic{Name: topicFollow, Queues: 2, Kind: broker.Transaction},
		broker.Topic{Name: rocketflow.MissingEventsTopic, Queues: 1})
}

// lock returns the key of a schedule's advisory lock.
func (w *world) lock(n int64) int64 { return w.lockBase + n }

// logf records what may explain a failure.
func (w *world) logf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := strings.TrimSpace(fmt.Sprintf(format, args...))
	if n := len(w.log); n == 0 || w.log[n-1] != text {
		w.log = append(w.log, text)
	}
}

func (w *world) takeLog() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	log := w.log
	w.log = nil
	return log
}

// try calls do, repeatedly while Postgres is away.
func (w *world) try(ctx context.Context, do func(context.Context) error) error {
	limit := time.Now().Add(tryFor)
	for {
		attempt, cancel := context.WithTimeout(ctx, 20*time.Second)
		err := do(attempt)
		cancel()
		if err == nil || ctx.Err() != nil || time.Now().After(limit) {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (w *world) countRemaining(ctx context.Context, seed uint64, all bool, stream string) (r remaining, err error) {
	err = w.try(ctx, func(ctx context.Context) (err error) {
		r, err = w.ledger.countRemaining(ctx, w.pool, seed, all, stream)
		return err
	})
	return r, err
}

func (w *world) judge(ctx context.Context, seed *uint64) (v verdict, err error) {
	err = w.try(ctx, func(ctx context.Context) (err error) { v, err = w.ledger.judge(ctx, w.pool, seed); return err })
	return v, err
}

// recordAfterCommit counts a call of an event's AfterCommit function.
func (w *world) recordAfterCommit(event string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.afterCommitted[event]++
}

// judgeAfterCommit checks the calls of AfterCommit functions for a schedule's events.
func (w *world) judgeAfterCommit(ctx context.Context, seed uint64) (violations []string, err error) {
	w.mu.Lock()
	afterCommitted := w.afterCommitted
	w.afterCommitted = map[string]int{}
	w.mu.Unlock()
	err = w.try(ctx, func(ctx context.Context) (err error) {
		violations, err = w.ledger.judgeAfterCommit(ctx, w.pool, seed, afterCommitted)
		return err
	})
	return violations, err
}

// jump moves the clock ahead. On a real broker, whose clock can't be moved, it sleeps for a little.
func (w *world) jump(ctx context.Context, d time.Duration) error {
	if w.clock == nil {
		time.Sleep(min(d/10, time.Second))
		return nil
	}
	err := w.try(ctx, func(ctx context.Context) error {
		return pgclock.Set(ctx, w.pool, w.name, w.clock.Offset()+d)
	})
	if err != nil {
		return err
	}
	w.clock.Advance(d)
	w.server.RunDue()
	return nil
}

// waitUntilQuiet lets time pass until a schedule has nothing left to do, except in stream unless that is empty. It returns
// what is left when the patience ends.
func (w *world) waitUntilQuiet(ctx context.Context, seed uint64, stream string) (left remaining, err error) {
	const enough = 60             // times
	look := 30 * time.Millisecond // before the clock is moved
	if w.config.steadyClock {
		look = 5 * time.Second
	}
	end, next, jumps := time.Now().Add(w.config.patience), time.Now().Add(look), 0
	for quiet := 0; quiet < 2; {
		if left, err = w.countRemaining(ctx, seed, false, stream); err != nil {
			return left, err
		}
		if left.empty() {
			quiet++
		} else {
			quiet = 0
		}
		if now := time.Now(); now.After(end) && (w.clock == nil || jumps >= enough) {
			return w.countRemaining(ctx, seed, true, stream)
		} else if now.After(next) {
			if err := w.jump(ctx, 1500*time.Millisecond); err != nil {
				return left, err
			}
			jumps++
			next = time.Now().Add(look)
		}
		time.Sleep(pollInterval)
	}
	return left, nil
}

// finish waits until the transactions have ended that processes have open now. A COMMIT may still run in Postgres after its
// process has crashed or lost the connection.
func (w *world) finish(ctx context.Context) error {
	var open []string
	err := w.try(ctx, func(ctx context.Context) error {
		return w.pool.QueryRow(ctx, w.ledger.sql.Get("OpenTransactions"), w.name, w.namesWithOpenTransactions()).Scan(&open)
	})
	for left := len(open) > 0; left && err == nil; {
		time.Sleep(pollInterval)
		err = w.try(ctx, func(ctx context.Context) error {
			return w.pool.QueryRow(ctx, w.ledger.sql.Get("AnyStillOpen"), open).Scan(&left)
		})
	}
	return err
}

// restartEnded starts the processes that have ended.
func (w *world) restartEnded(ctx context.Context) error {
	var group errgroup.Group
	for _, s := range w.slots {
		group.Go(func() error { return s.restartEnded(ctx) })
	}
	return group.Wait()
}

// copies returns how many messages the broker holds beyond one for each event.
func (w *world) copies() (n int64) {
	if w.server == nil {
		return 0
	}
	seen := map[string]bool{}
	messages, _ := w.server.MessagesSince(0)
	for _, m := range messages {
		if m.Topic != topicFirst && m.Topic != topicFollow {
			continue
		}
		id := m.Properties["CE_id"]
		if seen[id] {
			n++
		}
		seen[id] = true
	}
	return n
}

func (w *world) close() {
	var group sync.WaitGroup
	for _, s := range w.slots {
		group.Go(s.close)
	}
	group.Wait()
	w.cleanups.Wait()
	if w.pool != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_, err := w.pool.Exec(ctx, "DROP SCHEMA IF EXISTS "+pgx.Identifier{w.name}.Sanitize()+", "+w.snapshotSchema()+" CASCADE")
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			w.logf("drop schema: %v", err)
		}
		w.pool.Close()
	}
	if w.server != nil {
		w.server.Close()
	}
}
