package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// execution is one run of a schedule in a world.
type execution struct {
	*schedule
	w         *world
	ctx       context.Context
	heals     []func()
	running   sync.WaitGroup // transactions
	heldLocks map[int64]*pgxpool.Conn
	changed   map[int]bool // slots whose processes were replaced
	began     time.Time    // by Postgres' clock

	mu         sync.Mutex
	violations []string // those that the ledger does not show
}

// violation records a violation that the ledger does not show.
func (p *execution) violation(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.violations = append(p.violations, what)
}

// messageName returns a name of a message that is the same in each run, other than its id.
func messageName(r rocketmqtest.Request) string {
	var n testEvent
	if json.Unmarshal(r.Body, &n) == nil && n.Name != "" {
		return n.Name
	}
	return r.Properties["TAGS"] + "/" + r.Properties["SHARDING_KEY"]
}

const transactionTimeout = 5 * time.Second

// runSchedule runs a schedule and checks the invariants. took is the time from the end of the last fault until all was quiet.
// An error means that the schedule could not be run or checked.
func (w *world) runSchedule(ctx context.Context, s *schedule) (v verdict, events int64, took time.Duration, err error) {
	p := &execution{schedule: s, w: w, ctx: ctx, heldLocks: map[int64]*pgxpool.Conn{}, changed: map[int]bool{}}
	if err := w.try(ctx, func(ctx context.Context) error {
		return w.pool.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&p.began)
	}); err != nil {
		return v, 0, 0, err
	}
	if s.requestFaults != nil {
		p.heals = append(p.heals, w.server.Control(s.requestFaults.Hook))
	}
	for _, step := range s.steps {
		if err = step.do(p); err != nil {
			err = fmt.Errorf("%s: %w", step.what, err)
			break
		}
	}
	err = errors.Join(err, p.end())
	if err != nil {
		return v, 0, 0, err
	}
	healed := time.Now()
	var left remaining
	for range 10 {
		if left, err = w.waitUntilQuiet(ctx, s.seed, ""); err != nil {
			return v, 0, 0, err
		}
		took = time.Since(healed)
		if v, err = w.judge(ctx, &s.seed); err != nil {
			return v, left.published, took, err
		}
		if len(v.lost) == 0 || !left.empty() {
			break
		}
		// All was quiet, and yet something is to be handled: an event of a commit that Postgres has lost, for which nothing waits, came
		// in between, and its handler published.
	}
	v.other = append(v.other, p.violations...)
	afterCommitted, err := w.judgeAfterCommit(ctx, s.seed)
	v.duplicated = append(v.duplicated, afterCommitted...)
	if !left.empty() {
		v.other = append(v.other, "not quiet: "+left.String())
		w.diagnose(ctx, v.lost)
	}
	if err == nil && v.ok() {
		err = p.restore(ctx)
	}
	return v, left.published, took, err
}

// end ends all faults and waits for the transactions.
func (p *execution) end() error {
	p.thaw()
	if err := p.healAll(); err != nil {
		return err
	}
	if err := p.releaseHanging(); err != nil {
		return err
	}
	return p.w.finish(p.ctx)
}

// restartEnded starts the processes that have ended, unless that takes longer than a second because Postgres or the broker
// is away: then the end of the schedule does it.
func (p *execution) restartEnded() {
	ctx, cancel := context.WithTimeout(p.ctx, time.Second)
	defer cancel()
	if err := p.w.restartEnded(ctx); err != nil {
		p.w.logf("%v", err)
	}
}

// run runs a transaction and waits for it.
func (p *execution) run(t transaction) {
	p.start(t)
	p.running.Wait()
}

// start runs a transaction and does not wait for it.
func (p *execution) start(t transaction) {
	t = p.withHandledTypes(p.toRunningPublisher(t))
	if t.joins() {
		p.w.countFault(joinFault)
	}
	m := p.w.slots[t.By].current()
	p.running.Go(func() {
		ctx, cancel := context.WithTimeout(p.ctx, transactionTimeout)
		defer cancel()
		if err := m.do(ctx, t.locked(p.w)); err != nil {
			p.w.logf("%s: %v", t.Name, err)
			if strings.Contains(err.Error(), errAfterCommit.Error()) { // a child process sends only the text
				p.violation(fmt.Sprintf("%s: %v", t.Name, err))
			}
		}
	})
}

// locked returns the transaction with the lock key of its world.
func (t transaction) locked(w *world) transaction {
	if t.Lock != 0 {
		t.Lock = w.lock(t.Lock)
	}
	return t
}

// begin starts a transaction that waits, open, until its lock is released.
func (p *execution) begin(t transaction) error {
	if err := p.take(t.Lock); err != nil {
		return err
	}
	p.start(t)
	_, err := p.waiter(t.Lock)
	return err
}

// hang lets a transaction wait in COMMIT, and there cuts its connection, kills its publisher or terminates its backend.
func (p *execution) hang(t transaction, kill bool) error {
	t = p.toRunningPublisher(t)
	if err := p.take(t.Lock); err != nil {
		return err
	}
	p.start(t)
	backend, err := p.waiter(t.Lock)
	if err != nil || backend == 0 {
		return err
	}
	m := p.w.slots[t.By].current()
	switch {
	case t.Behavior == hangsInCommitAborted:
		return p.w.try(p.ctx, func(ctx context.Context) error {
			_, err := p.w.pool.Exec(ctx, "SELECT pg_terminate_backend($1)", backend)
			return err
		})
	case kill:
		m.kill()
	default:
		m.cutPostgres(connFault{})
	}
	return nil
}

func (p *execution) take(lock int64) error {
	return p.w.try(p.ctx, func(ctx context.Context) error {
		conn, err := p.w.pool.Acquire(ctx)
		if err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", p.w.lock(lock)); err != nil {
			conn.Release()
			return err
		}
		p.heldLocks[lock] = conn
		return nil
	})
}

func (p *execution) release(lock int64) error {
	conn := p.heldLocks[lock]
	if conn == nil {
		return nil
	}
	delete(p.heldLocks, lock)
	defer conn.Release()
	if _, err := conn.Exec(p.ctx, "SELECT pg_advisory_unlock($1)", p.w.lock(lock)); err != nil {
		_ = conn.Conn().Close(p.ctx) // the lock goes with it
	}
	return nil
}

// waiter returns the backend that waits for a lock, or 0 if none does soon because the transaction has failed before.
func (p *execution) waiter(lock int64) (backend int, err error) {
	limit := time.Now().Add(300 * time.Millisecond)
	for backend == 0 && time.Now().Before(limit) {
		time.Sleep(2 * time.Millisecond)
		err = p.w.try(p.ctx, func(ctx context.Context) error {
			err := p.w.pool.QueryRow(ctx, `SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
				AND classid::bigint << 32 | objid::bigint = $1`, p.w.lock(lock)).Scan(&backend)
			if errors.Is(err, pgx.ErrNoRows) {
				return nil
			}
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	return backend, nil
}

// waitQuiet waits until nothing is left to do, but at most for patience.
func (p *execution) waitQuiet(patience time.Duration) error {
	limit := time.Now().Add(patience)
	for {
		left, err := p.w.countRemaining(p.ctx, p.seed, false, "")
		if err != nil || left.empty() || time.Now().After(limit) {
			return err
		}
		time.Sleep(pollInterval)
	}
}

// loseMarkers waits until all is quiet, has the broker forget which transactions have ended, and lets it check back.
func (p *execution) loseMarkers() error {
	p.running.Wait()
	if _, err := p.w.waitUntilQuiet(p.ctx, p.seed, ""); err != nil {
		return err
	}
	if err := p.w.server.Restart(rocketmqtest.LoseMarkers); err != nil {
		return err
	}
	for range 4 {
		if err := p.w.jump(p.ctx, time.Second); err != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}
