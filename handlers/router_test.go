package handlers

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/fencing"
)

func TestStartAndStopCanBeRepeated(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := context.Background()
	r := b.router(b.config())
	r.Handle("billing", topic, "order.changed", effect)
	if err := r.Stop(ctx); err != nil {
		t.Fatalf("stop before start: %v", err)
	}
	c := newChain("a")
	for i := range 3 {
		for range 2 {
			if err := r.Start(ctx); err != nil {
				t.Fatal(err)
			}
		}
		b.broker.publish(c.next(1)...)
		poll.Until(t, "it ran", func() bool { return b.effectCount() == i+1 })
		if err := r.Err(); err != nil {
			t.Errorf("unhealthy: %v", err)
		}
		for range 2 {
			if err := r.Stop(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestStopWhileBusy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.broker.shuffle = true
	const streams, length = 20, 10
	chains := map[string][]rocketflow.Event{}
	for i := range streams {
		chains[subjectN(i)] = newChain(subjectN(i)).next(length)
		b.broker.publish(chains[subjectN(i)]...)
	}
	for b.effectCount() < streams*length {
		cfg := b.config()
		cfg.BatchSize, cfg.MaxInFlight, cfg.GapWait = 4, 32, 5*time.Millisecond
		r := b.router(cfg)
		r.Handle("billing", topic, "order.changed", effect)
		before := b.effectCount()
		if err := r.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
		poll.Until(t, "something ran", func() bool { return b.effectCount() > before })
		b.stop(r)
	}
	for subject, events := range chains {
		b.wantOrder(subject, events...)
	}
}

func TestStopCancelsHandlersAfterItsContext(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.router(b.config())
	entered := make(chan struct{})
	var once sync.Once
	r.Handle("billing", topic, "order.changed", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		if err := effect(ctx, tx, e); err != nil {
			return err
		}
		first := false
		once.Do(func() { first = true; close(entered) })
		if first {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})
	if err := r.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	events := newChain("a").next(2)
	b.broker.publish(events...)
	<-entered
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := r.Stop(ctx); err == nil {
		t.Error("Stop did not return an error though it ended a handler")
	}
	if n := b.effectCount(); n != 0 {
		t.Errorf("%d effects of a handler that was cut off", n)
	}
	b.start(r)
	poll.Until(t, "both ran", func() bool { return b.effectCount() == 2 })
	b.wantOrder("a", events...)
	if n := b.effects("a")[0].Attempt; n != 1 {
		t.Errorf("being cut off counted as an attempt")
	}
}

func TestPostgresGoneForAWhile(t *testing.T) {
	t.Parallel()
	b, p, r := setupProbed(t)
	r.Handle("billing", topic, "order.changed", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		sleep := 0.002
		if p.get("stalled") == 0 {
			sleep = 0.1 // so that there is something to cut
		}
		if _, err := tx.Exec(ctx, "SELECT pg_sleep($1::float8)", sleep); err != nil {
			return err
		}
		return effect(ctx, tx, e)
	})
	b.start(r)
	const streams, length = 20, 20
	chains := map[string][]rocketflow.Event{}
	for i := range streams {
		chains[subjectN(i)] = newChain(subjectN(i)).next(length)
		b.broker.publish(chains[subjectN(i)]...)
	}
	cuts := 0
	poll.Until(t, "all ran", func() bool {
		var n int
		for try := range 3 { // this look may be cut too
			_ = try
			if b.pool.QueryRow(context.Background(), "SELECT count(*) FROM effect").Scan(&n) == nil {
				break
			}
		}
		if n < streams*length && (cuts < 10 || p.get("stalled") == 0) {
			cuts++
			_, _ = b.pool.Exec(context.Background(), `
				SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a
				WHERE a.pid <> pg_backend_pid() AND a.datname = current_database() AND EXISTS (
					SELECT FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE l.pid = a.pid AND c.relnamespace = $1::regnamespace)`, b.schema)
		}
		return n == streams*length
	})
	for subject, events := range chains {
		b.wantOrder(subject, events...)
	}
	if p.get("stalled") == 0 {
		t.Error("no connection was cut: the test shows nothing")
	}
	if n := p.get("parked retry") + p.get("dead"); n != 0 {
		t.Errorf("%d events were blamed for Postgres", n)
	}
	for _, g := range b.broker.groups {
		if g.errors != 0 {
			t.Errorf("%d messages were sent back", g.errors)
		}
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cfg := b.config()
	cfg.RateLimit = 50
	r := b.router(cfg)
	r.Handle("billing", topic, "order.seen", effect)
	b.start(r)
	start := time.Now()
	for range 40 {
		b.broker.publish(loose("order.seen", "a"))
	}
	poll.Until(t, "all ran", func() bool { return b.effectCount() == 40 })
	if took := time.Since(start); took < 600*time.Millisecond {
		t.Errorf("40 events at 50 a second took %v", took)
	}
}

func TestConcurrencyIsThatOfTheLanes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cfg := b.config()
	cfg.Lanes, cfg.BatchSize = 3, 1
	r := b.router(cfg)
	var now, most, calls atomic.Int64
	r.Handle("billing", topic, "order.seen", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if _, err := tx.Exec(ctx, "SELECT pg_sleep(0.005)"); err != nil {
			return err
		}
		if calls.Add(1)%3 == 0 {
			return errBroken
		}
		return effect(ctx, tx, e)
	})
	b.start(r)
	for range 60 {
		b.broker.publish(loose("order.seen", "a"))
	}
	poll.Until(t, "all settled", func() bool { return b.broker.idle() && b.effectCount()+b.parkedCount(DeadLetter) == 60 })
	if most.Load() > 3 || most.Load() < 2 {
		t.Errorf("%d handlers ran at a time, want 3 at most", most.Load())
	}
}

func TestMiddlewareAndSeveralConsumers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.router(b.config())
	var mu sync.Mutex
	var calls []string
	note := func(name string) rocketflow.Middleware {
		return func(next rocketflow.HandlerFunc) rocketflow.HandlerFunc {
			return func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
				mu.Lock()
				if Consumer(ctx) == "billing" {
					calls = append(calls, name)
				}
				mu.Unlock()
				return next(ctx, tx, e)
			}
		}
	}
	r.Use(note("outer"), note("inner"))
	r.Handle("billing", topic, "order.changed", failing("a", 1, errBroken))
	r.Handle("shipping", topic, "order.changed", effect)
	b.start(r)
	b.broker.publish(newChain("a").next(1)...)
	poll.Until(t, "both ran", func() bool { return b.effectCount() == 2 })
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"outer", "inner", "outer", "inner"}; !slices.Equal(calls, want) {
		t.Errorf("middleware calls %v, want %v", calls, want)
	}
}

func TestTimeoutEventsLeaveNoInbox(t *testing.T) {
	t.Parallel()
	b, p, r := setupProbed(t)
	var fired sync.Map
	r.Use(func(next rocketflow.HandlerFunc) rocketflow.HandlerFunc { // a fence
		return func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
			fencing.Pass(ctx)
			if _, twice := fired.LoadOrStore(e.ID, true); twice {
				return rocketflow.ErrStale
			}
			return next(ctx, tx, e)
		}
	})
	r.Handle("billing", topic, "order.expired", effect)
	b.start(r)
	e := loose("order.expired", "a")
	e.TimeoutKey, e.TimeoutName = "a", "payment"
	b.broker.publish(e)
	poll.Until(t, "it fired", func() bool { return b.effectCount() == 1 && b.broker.idle() })
	b.broker.publish(e)
	poll.Until(t, "the second is stale", func() bool { return p.get("discarded") == 1 && b.broker.idle() })
	if n := b.count("SELECT count(*) FROM inbox"); n != 0 {
		t.Errorf("%d rows in the inbox, want none", n)
	}
}

func TestHandlerPublishes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.router(b.config())
	On(r, "billing", func(ctx context.Context, tx rocketflow.Tx, p placed) error {
		return tx.Publish(ctx, rocketflow.Event{Topic: topic, Type: "order.billed", Subject: p.Order, Body: []byte("{}")})
	})
	r.Handle("billing", topic, "order.billed", effect)
	b.start(r)
	b.broker.publish(loose("order.placed", "a"))
	poll.Until(t, "the published event had its effect", func() bool { return len(b.effects("a")) == 1 })
}

func TestRetentionForgetsWhatIsOld(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := context.Background()
	r := b.router(b.config())
	old := time.Now().Add(-40 * 24 * time.Hour).UnixMicro()
	if _, err := b.pool.Exec(ctx, `INSERT INTO consumer (name) VALUES ('c')`); err != nil {
		t.Fatal(err)
	}
	if _, err := b.pool.Exec(ctx, `INSERT INTO position VALUES ('c', 's', 't', 'old', $1), ('c', 's', 't', 'new', $2), ('c', 's', 't', 'begun', $2)`, old, time.Now().UnixMicro()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.pool.Exec(ctx, `INSERT INTO inbox VALUES ($1, 'c', now() - interval '9 days'), ($2, 'c', now())`, uuid.New(), uuid.New()); err != nil {
		t.Fatal(err)
	}
	if err := r.retain(ctx); err != nil {
		t.Fatal(err)
	}
	if n := b.count("SELECT count(*) FROM position"); n != 2 {
		t.Errorf("%d positions are left, want 2", n)
	}
	if n := b.count("SELECT count(*) FROM inbox"); n != 1 {
		t.Errorf("%d inbox rows are left, want 1", n)
	}
}
