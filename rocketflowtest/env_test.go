package rocketflowtest_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/timeout"
)

type placed struct {
	ID string `json:"id"`
}

func (p placed) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "orders", Type: "order.placed", Subject: p.ID}
}

type overdue struct {
	ID string `json:"id"`
}

func (o overdue) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "order-timeouts", Type: "order.overdue"}
}

type closed struct {
	ID string `json:"id"`
}

func (c closed) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "orders", Type: "order.closed", Subject: c.ID}
}

var topics = []broker.Topic{{Name: "orders", Queues: 4}, {Name: "order-timeouts", Queues: 4}}

// orders closes orders that nobody paid within half an hour.
var orders = fx.Invoke(func(router *handlers.Router, timer *timeout.Scheduler, pool *pgxpool.Pool) error {
	handlers.On(router, "orders", func(ctx context.Context, tx rocketflow.Tx, p placed) error {
		if _, err := tx.Exec(ctx, "INSERT INTO orders (id) VALUES ($1)", p.ID); err != nil {
			return err
		}
		var now time.Time
		if err := tx.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&now); err != nil {
			return err
		}
		return timer.Arm(ctx, tx, p.ID, "unpaid", now.Add(30*time.Minute), overdue(p))
	})
	handlers.On(router, "orders", func(ctx context.Context, tx rocketflow.Tx, o overdue) error {
		return tx.Publish(ctx, closed(o))
	})
	_, err := pool.Exec(context.Background(), "CREATE TABLE orders (id text, at timestamptz DEFAULT now())")
	return err
})

// TestFastForward moves the clock to just before two timeouts and then past them: they fire then and not before.
func TestFastForward(t *testing.T) {
	t.Parallel()
	env := rocketflowtest.New(t)
	s := env.Start(rocketflowfx.Config{Service: "orders", Topics: topics}, orders)
	s.Publish(placed{"o-1"}, placed{"o-2"})
	env.Settle()
	if armed := s.Timeouts(); len(armed) != 2 || armed[0].Name != "unpaid" || armed[0].Due.Sub(env.Now()) > 30*time.Minute {
		t.Errorf("armed: %v", armed)
	}
	began := time.Now()
	env.FastForward(29 * time.Minute)
	if done := rocketflowtest.Events[closed](env); len(done) != 0 {
		t.Errorf("closed a minute early: %v", done)
	}
	env.FastForward(time.Minute)
	if done := rocketflowtest.Events[closed](env); len(done) != 2 {
		t.Errorf("closed: %v", done)
	}
	if len(s.Timeouts()) != 0 || len(s.DeadLetters()) != 0 {
		t.Errorf("left: timeouts %v, dead letters %v", s.Timeouts(), s.DeadLetters())
	}
	t.Logf("half an hour took %v", time.Since(began))
	var latest time.Time
	if err := s.Pool.QueryRow(t.Context(), "SELECT max(at) FROM orders").Scan(&latest); err != nil {
		t.Fatal(err)
	}
	if ago := env.Now().Sub(latest); ago < 30*time.Minute || ago > 31*time.Minute {
		t.Errorf("the order is %v old", ago)
	}
}

// TestFastForwardStopsAtEachDueInstant arms a timeout in the handler of another: each fires in its turn within one
// FastForward.
func TestFastForwardStopsAtEachDueInstant(t *testing.T) {
	t.Parallel()
	env := rocketflowtest.New(t)
	var fired atomic.Int32
	s := env.Start(rocketflowfx.Config{Service: "orders", Topics: topics}, fx.Invoke(func(router *handlers.Router, timer *timeout.Scheduler) {
		handlers.On(router, "orders", func(ctx context.Context, tx rocketflow.Tx, o overdue) error {
			fired.Add(1)
			return timer.Arm(ctx, tx, o.ID, "again", env.Now().Add(10*time.Minute), o)
		})
	}))
	s.Publish(overdue{"o-1"})
	env.FastForward(65 * time.Minute)
	if n := fired.Load(); n != 7 {
		t.Errorf("fired %d times in 65 minutes, want at 0, 10, 20 ... 60", n)
	}
}

// TestRetriesFollowTheClock has a handler fail three times: the retries run when the clock is moved to them.
func TestRetriesFollowTheClock(t *testing.T) {
	t.Parallel()
	env := rocketflowtest.New(t)
	var calls atomic.Int32
	s := env.Start(rocketflowfx.Config{Service: "orders", Topics: topics}, fx.Invoke(func(router *handlers.Router) {
		handlers.On(router, "orders", func(ctx context.Context, tx rocketflow.Tx, p placed) error {
			if calls.Add(1) < 4 {
				return errors.New("not yet")
			}
			return tx.Publish(ctx, closed(p))
		})
	}))
	s.Publish(placed{"o-1"})
	env.Settle()
	if len(s.Parked()) != 1 {
		t.Errorf("waiting: %v after %d calls", s.Parked(), calls.Load())
	}
	env.FastForward(24 * time.Hour)
	if done := rocketflowtest.Events[closed](env); len(done) != 1 || calls.Load() != 4 || len(s.Parked()) != 0 {
		t.Errorf("closed: %v after %d calls; waiting %v", done, calls.Load(), s.Parked())
	}
}

type parcel struct{ Weight int }

// TestSagaSnapshot reads a saga before and after its deadline, and one that doesn't exist.
func TestSagaSnapshot(t *testing.T) {
	t.Parallel()
	env := rocketflowtest.New(t)
	definition := saga.Define[parcel]("parcel", 1)
	definition.Initial("packed")
	definition.Final("lost")
	definition.Deadline("packed", "lost", func(*parcel) time.Time { return env.Now().Add(48 * time.Hour) }, nil)
	var parcels *saga.Saga[parcel]
	config := rocketflowfx.Config{Service: "parcels", Topics: topics}
	config.Saga.TimeoutTopic = "order-timeouts"
	s := env.Start(config,
		fx.Provide(func(e *saga.Engine) (*saga.Saga[parcel], error) { return saga.Register(e, definition) }),
		fx.Populate(&parcels),
	)
	s.Within(func(ctx context.Context, tx rocketflow.Tx) error { return parcels.Begin(ctx, tx, "p-1", parcel{3}) })
	env.FastForward(47 * time.Hour)
	if is := s.Saga("parcel", "p-1"); is.State != "packed" {
		t.Errorf("after 47 h: %v", is)
	}
	env.FastForward(2 * time.Hour)
	if is := s.Saga("parcel", "p-1"); is.State != "lost" || len(is.States) != 2 {
		t.Errorf("after 49 h: %v", is)
	}
	if is := s.Saga("parcel", "p-2"); is.State != "" {
		t.Errorf("a saga that does not exist: %v", is)
	}
}

// TestStoppedServiceCatchesUp stops one of two services and starts it again: it handles then what the other published
// meanwhile.
func TestStoppedServiceCatchesUp(t *testing.T) {
	t.Parallel()
	env := rocketflowtest.New(t)
	shop := env.Start(rocketflowfx.Config{Service: "shop", Topics: topics})
	var got atomic.Int32
	store := env.Start(rocketflowfx.Config{Service: "store", Topics: topics}, fx.Invoke(func(router *handlers.Router) {
		handlers.On(router, "store", func(context.Context, rocketflow.Tx, placed) error { got.Add(1); return nil })
	}))
	shop.Publish(placed{"o-1"})
	env.Settle()
	store.Stop()
	shop.Publish(placed{"o-2"})
	env.Settle()
	if n := got.Load(); n != 1 {
		t.Errorf("got %d while stopped", n)
	}
	store.Start()
	env.Settle()
	if n := got.Load(); n != 2 {
		t.Errorf("got %d of 2", n)
	}
}

// TestSettleWaitsAcrossRestarts restarts the broker, which forgets its consumers: Settle waits for what is published before
// they are back.
func TestSettleWaitsAcrossRestarts(t *testing.T) {
	t.Parallel()
	env := rocketflowtest.New(t, rocketflowtest.Config{Configure: func(c rocketflowfx.Config) rocketflowfx.Config {
		c.RocketMQ.SendTimeout = time.Second
		return c
	}})
	var got atomic.Int32
	s := env.Start(rocketflowfx.Config{Service: "store", Topics: topics}, fx.Invoke(func(router *handlers.Router) {
		handlers.On(router, "store", func(context.Context, rocketflow.Tx, placed) error { got.Add(1); return nil })
	}))
	for i, loss := range []rocketmqtest.Loss{rocketmqtest.LoseNothing, rocketmqtest.LoseMemory, rocketmqtest.LoseUnflushed} {
		env.RestartBroker(loss)
		s.Publish(placed{"o-1"})
		for left := env.TrySettle(time.Second); left != nil; left = env.TrySettle(time.Second) {
			env.Advance(time.Second) // to the next sweep, or check
		}
		if n := got.Load(); n != int32(i)+1 {
			t.Fatalf("after restart %d: handled %d of %d events", i+1, n, i+1)
		}
		env.Advance(time.Second) // the broker has flushed everything to disk
	}
}
