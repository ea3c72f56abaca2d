package timeout_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/timeout"
)

// within runs a transaction at the database's isolation level.
func within(ctx context.Context, pool *pgxpool.Pool, fn func(tx rocketflow.Tx) error) error {
	return testdb.Within(ctx, pool, pgx.TxOptions{}, func(tx *testdb.Tx) error { return fn(tx) })
}

// fakeBroker is a broker in memory that delivers to one handler, as package handlers would.
type fakeBroker struct {
	pool    *pgxpool.Pool
	horizon time.Duration
	skew    time.Duration // its clock is ahead by this much
	handler rocketflow.HandlerFunc

	mu        sync.Mutex
	timers    []*time.Timer
	calls     sync.WaitGroup
	stopped   bool
	away      bool // refuses everything
	loseAll   bool // accepts timers and forgets them
	scheduled []broker.Message
	sent      []broker.Message
	failures  []error
}

func (m *fakeBroker) Horizon() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.horizon
}

func (m *fakeBroker) Schedule(_ context.Context, msg broker.Message, at time.Time) (broker.Timer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return broker.Timer{}, broker.ErrUnavailable
	}
	if time.Until(at) > m.horizon+time.Second {
		return broker.Timer{}, broker.ErrBeyondHorizon
	}
	m.scheduled = append(m.scheduled, msg)
	if !m.loseAll {
		m.deliver(msg, time.Until(at)-m.skew)
	}
	return broker.Timer{MessageID: msg.ID}, nil
}

func (m *fakeBroker) SendGroup(ctx context.Context, ms []broker.Message) []error {
	return sendEach(ctx, ms, m.Send)
}

// sendEach sends messages one after the other.
func sendEach(ctx context.Context, ms []broker.Message, send func(context.Context, broker.Message) (broker.Receipt, error)) []error {
	errs := make([]error, len(ms))
	for i, m := range ms {
		_, errs[i] = send(ctx, m)
	}
	return errs
}

func (m *fakeBroker) Send(_ context.Context, msg broker.Message) (broker.Receipt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return broker.Receipt{}, broker.ErrUnavailable
	}
	m.sent = append(m.sent, msg)
	m.deliver(msg, 0)
	return broker.Receipt{MessageID: msg.ID}, nil
}

// deliver runs the handler after a while. m.mu is held.
func (m *fakeBroker) deliver(msg broker.Message, after time.Duration) {
	if m.stopped || m.handler == nil {
		return
	}
	m.calls.Add(1)
	m.timers = append(m.timers, time.AfterFunc(after, func() {
		defer m.calls.Done()
		err := m.handle(msg)
		m.mu.Lock()
		defer m.mu.Unlock()
		var again *rocketflow.RetryAfterError
		switch {
		case errors.As(err, &again):
			m.deliver(msg, again.After)
		case err != nil:
			m.failures = append(m.failures, err)
		}
	}))
}

func (m *fakeBroker) handle(msg broker.Message) error {
	e, err := wire.EventOf(broker.Delivery{Message: msg})
	if err != nil {
		return err
	}
	return handle(m.pool, m.handler, e)
}

// handle runs a handler in a transaction; a stale event is settled.
func handle(pool *pgxpool.Pool, h rocketflow.HandlerFunc, e rocketflow.Event) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := within(ctx, pool, func(tx rocketflow.Tx) error {
		if _, err := tx.Exec(ctx, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"); err != nil { // as the router has it
			return err
		}
		return h(ctx, tx, e)
	})
	if errors.Is(err, rocketflow.ErrStale) {
		return nil
	}
	return err
}

func (m *fakeBroker) stop() {
	m.mu.Lock()
	m.stopped = true
	for _, t := range m.timers {
		if t.Stop() {
			m.calls.Done()
		}
	}
	m.mu.Unlock()
	m.calls.Wait()
}

func (m *fakeBroker) set(fn func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn()
}

func (m *fakeBroker) counts() (scheduled, sent int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.scheduled), len(m.sent)
}

type closeOrder struct{ Order string }

func (p closeOrder) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "orders", Type: "order.payment_timed_out", Subject: p.Order, Headers: map[string]string{"why": "late"}}
}

// bundle is a scheduler on a schema of its own with a fakeBroker; fired gets the events that the fence admitted.
type bundle struct {
	*timeout.Scheduler
	pool   *pgxpool.Pool
	schema string
	broker *fakeBroker
	fired  chan rocketflow.Event
}

func setup(t *testing.T, change func(*timeout.Config, *fakeBroker)) *bundle {
	t.Helper()
	pool, schema := testdb.Partitioned(t)
	return setupIn(t, pool, schema, change)
}

func setupIn(t *testing.T, pool *pgxpool.Pool, schema string, change func(*timeout.Config, *fakeBroker)) *bundle {
	t.Helper()
	b := &bundle{pool: pool, schema: schema, fired: make(chan rocketflow.Event, 1000)}
	b.broker = &fakeBroker{pool: pool, horizon: time.Hour}
	cfg := timeout.Config{
		Pool: pool, Broker: b.broker, Schema: schema, Source: "test",
		SweepInterval: 20 * time.Millisecond, SweepGrace: 200 * time.Millisecond, RetryInterval: 100 * time.Millisecond,
		Listener: &timeout.Listener{},
	}
	if change != nil {
		change(&cfg, b.broker)
	}
	var err error
	if b.Scheduler, err = timeout.New(cfg); err != nil {
		t.Fatal(err)
	}
	b.broker.handler = b.Fence(func(_ context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		tx.AfterCommit(func() { b.fired <- e })
		return nil
	})
	t.Cleanup(b.broker.stop)
	return b
}

// start runs the scheduler until the test ends.
func (b *bundle) start(t *testing.T) *bundle {
	t.Helper()
	start(t, b.Scheduler)
	return b
}

func start(t *testing.T, s *timeout.Scheduler) {
	t.Helper()
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func (b *bundle) arm(t *testing.T, key string, in time.Duration) {
	t.Helper()
	err := within(t.Context(), b.pool, func(tx rocketflow.Tx) error {
		return b.Arm(t.Context(), tx, key, "payment", time.Now().Add(in), closeOrder{key})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (b *bundle) disarm(t *testing.T, key string) (was bool) {
	t.Helper()
	err := within(t.Context(), b.pool, func(tx rocketflow.Tx) (err error) {
		was, err = b.Disarm(t.Context(), tx, key, "payment")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return was
}

func (b *bundle) waitFired(t *testing.T) rocketflow.Event {
	t.Helper()
	select {
	case e := <-b.fired:
		return e
	case <-time.After(30 * time.Second):
		t.Fatal("nothing fired")
		return rocketflow.Event{}
	}
}

// count returns how many rows are armed; where is a condition.
func (b *bundle) count(t *testing.T, where string) (n int) {
	t.Helper()
	if err := b.pool.QueryRow(t.Context(), fmt.Sprintf("SELECT count(*) FROM %s.timeout WHERE %s", b.schema, where)).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// database returns the id that the timeouts' events carry.
func (b *bundle) database(t *testing.T) (id string) {
	t.Helper()
	if err := b.pool.QueryRow(t.Context(), fmt.Sprintf("SELECT id::text FROM %s.installation", b.schema)).Scan(&id); err != nil {
		t.Fatal(err)
	}
	return id
}
