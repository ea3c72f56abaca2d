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

// play is a schedule being played in a world.
type play struct {
	*schedule
	w       *world
	ctx     context.Context
	heals   []func()
	running sync.WaitGroup // transactions
	locks   map[int64]*pgxpool.Conn
	changed map[int]bool // slots whose processes were replaced
	began   time.Time    // by Postgres' clock

	mu    sync.Mutex
	wrong []string // what the ledger doesn't see
}

// fault notes what is wrong with the schedule.
func (p *play) fault(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wrong = append(p.wrong, what)
}

// nameOf names a message alike in each run: the ids of events are drawn anew.
func nameOf(r rocketmqtest.Request) string {
	var n note
	if json.Unmarshal(r.Body, &n) == nil && n.Name != "" {
		return n.Name
	}
	return r.Properties["TAGS"] + "/" + r.Properties["__SHARDINGKEY"]
}

const transactionTimeout = 5 * time.Second

// play plays a schedule to its end and judges what came of it; took is how long that took to come to rest. An error is
// the driver's own.
func (w *world) play(ctx context.Context, s *schedule) (v verdict, events int64, took time.Duration, err error) {
	p := &play{schedule: s, w: w, ctx: ctx, locks: map[int64]*pgxpool.Conn{}, changed: map[int]bool{}}
	if err := w.try(ctx, func(ctx context.Context) error {
		return w.pool.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&p.began)
	}); err != nil {
		return v, 0, 0, err
	}
	if s.faults != nil {
		p.heals = append(p.heals, w.server.Control(s.faults.Hook))
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
	left, err := w.settle(ctx, s.seed, "")
	if err != nil {
		return v, 0, 0, err
	}
	took = time.Since(healed)
	if v, err = w.judge(ctx, &s.seed); err != nil {
		return v, left.published, took, err
	}
	v.other = append(v.other, p.wrong...)
	announced, err := w.judgeAnnounced(ctx, s.seed)
	v.doubled = append(v.doubled, announced...)
	if !left.none() {
		v.other = append(v.other, "not at rest: "+left.String())
		w.progress(ctx, v.lost)
	}
	if err == nil && v.ok() {
		err = p.restore(ctx)
	}
	return v, left.published, took, err
}

// end heals all, and waits for the transactions.
func (p *play) end() error {
	p.thaw()
	if err := p.healAll(); err != nil {
		return err
	}
	if err := p.releaseHanging(); err != nil {
		return err
	}
	return p.w.finish(p.ctx)
}

// revive starts who is dead, if that can be done soon: what they need may be away. Else the end does it.
func (p *play) revive() {
	ctx, cancel := context.WithTimeout(p.ctx, time.Second)
	defer cancel()
	if err := p.w.revive(ctx); err != nil {
		p.w.note("%v", err)
	}
}

// run runs a transaction and waits for it.
func (p *play) run(t transaction) {
	p.start(t)
	p.running.Wait()
}

// start runs a transaction beside all else.
func (p *play) start(t transaction) {
	t = p.known(p.awake(t))
	if t.joins() {
		p.w.took(joinFault)
	}
	m := p.w.slots[t.By].member()
	p.running.Go(func() {
		ctx, cancel := context.WithTimeout(p.ctx, transactionTimeout)
		defer cancel()
		if err := m.do(ctx, t.locked(p.w)); err != nil {
			p.w.note("%s: %v", t.Name, err)
			if strings.Contains(err.Error(), errAfterCommit.Error()) { // of a child there is only the text
				p.fault(fmt.Sprintf("%s: %v", t.Name, err))
			}
		}
	})
}

// locked has the transaction's lock be its world's own.
func (t transaction) locked(w *world) transaction {
	if t.Lock != 0 {
		t.Lock = w.lock(t.Lock)
	}
	return t
}

// begin begins a transaction that goes on when its lock is released.
func (p *play) begin(t transaction) error {
	if err := p.take(t.Lock); err != nil {
		return err
	}
	p.start(t)
	_, err := p.waiter(t.Lock)
	return err
}

// hang has a transaction get stuck in COMMIT, and there loses the connection, or the publisher, or the backend.
func (p *play) hang(t transaction, kill bool) error {
	t = p.awake(t)
	if err := p.take(t.Lock); err != nil {
		return err
	}
	p.start(t)
	backend, err := p.waiter(t.Lock)
	if err != nil || backend == 0 {
		return err
	}
	m := p.w.slots[t.By].member()
	switch {
	case t.Manner == hangsAborted:
		return p.w.try(p.ctx, func(ctx context.Context) error {
			_, err := p.w.pool.Exec(ctx, "SELECT pg_terminate_backend($1)", backend)
			return err
		})
	case kill:
		m.kill()
	default:
		m.cutPostgres(trap{})
	}
	return nil
}

func (p *play) take(lock int64) error {
	return p.w.try(p.ctx, func(ctx context.Context) error {
		conn, err := p.w.pool.Acquire(ctx)
		if err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", p.w.lock(lock)); err != nil {
			conn.Release()
			return err
		}
		p.locks[lock] = conn
		return nil
	})
}

func (p *play) release(lock int64) error {
	conn := p.locks[lock]
	if conn == nil {
		return nil
	}
	delete(p.locks, lock)
	defer conn.Release()
	if _, err := conn.Exec(p.ctx, "SELECT pg_advisory_unlock($1)", p.w.lock(lock)); err != nil {
		_ = conn.Conn().Close(p.ctx) // the lock goes with it
	}
	return nil
}

// waiter waits until a backend waits for a lock. 0: none does, as the transaction has failed before.
func (p *play) waiter(lock int64) (backend int, err error) {
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

// rest lets things come to rest, for a while at most.
func (p *play) rest(patience time.Duration) error {
	limit := time.Now().Add(patience)
	for {
		left, err := p.w.left(p.ctx, p.seed, false, "")
		if err != nil || left.none() || time.Now().After(limit) {
			return err
		}
		time.Sleep(pollInterval)
	}
}

// forget has all come to rest and the broker forget its markers, and lets it ask.
func (p *play) forget() error {
	p.running.Wait()
	if _, err := p.w.settle(p.ctx, p.seed, ""); err != nil {
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
