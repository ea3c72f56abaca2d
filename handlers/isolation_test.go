package handlers

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/operate"
)

// calls counts the calls of handlers by event.
type calls struct {
	mu sync.Mutex
	of map[uuid.UUID]int
}

func (c *calls) add(e rocketflow.Event) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = map[uuid.UUID]int{}
	}
	c.of[e.ID]++
	return c.of[e.ID]
}

func (c *calls) count(e rocketflow.Event) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of[e.ID]
}

func (c *calls) all() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, times := range c.of {
		n += times
	}
	return n
}

// Two processes get the first event of a stream, of which there is no row yet: one handler runs, once.
func TestFirstEventOfAStreamRunsOnce(t *testing.T) {
	t.Parallel()
	b, p := setup(t), newProbe()
	b.broker.duplicate = 1
	const streams = 10
	var called calls
	handler := func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		called.add(e)
		if e.Previous == 0 { // the other process has it, too, and waits
			poll.Until(t, "both copies have come", func() bool { return p.get("received") >= 2*2*streams })
		}
		return effect(ctx, tx, e)
	}
	for range 2 {
		cfg := b.config()
		cfg.Listener, cfg.Lanes, cfg.BatchSize = p.listener(), streams, 1
		r := b.router(cfg)
		r.Handle("billing", topic, "order.changed", handler)
		b.start(r)
	}
	var all []rocketflow.Event
	for i := range streams {
		all = append(all, newChain(subjectN(i)).next(2)...)
	}
	b.broker.publish(all...)
	poll.Until(t, "all are handled", func() bool { return b.effectCount() == 2*streams && b.broker.idle() })
	for _, e := range all {
		if n := called.count(e); n != 1 {
			t.Errorf("the handler of %s ran %d times", e.Subject, n)
		}
	}
}

// An event that its handler gives up among others: those before it run once more, those behind it once.
func TestNeighboursOfAFailure(t *testing.T) {
	t.Parallel()
	b, p := setup(t), newProbe()
	cfg := b.config()
	cfg.Lanes, cfg.Listener = 1, p.listener()
	r := b.router(cfg)
	const n, bad = 40, 13
	all := make([]rocketflow.Event, n)
	for i := range all {
		all[i] = loose("order.changed", subjectN(i))
	}
	var called calls
	var failed atomic.Bool
	var behind sync.Map // first called after the failure
	gathered := make(chan struct{})
	r.Handle("billing", topic, "order.changed", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		if called.add(e) == 1 && failed.Load() {
			behind.Store(e.ID, true)
		}
		if e.Subject == "first" {
			<-gathered
		}
		if e.ID == all[bad].ID {
			failed.Store(true)
			return Dead(errors.New("no such order"))
		}
		return effect(ctx, tx, e)
	})
	b.start(r)
	b.broker.publish(loose("order.changed", "first"))
	poll.Until(t, "the lane is busy", func() bool { return called.all() == 1 })
	b.broker.publish(all...)
	poll.Until(t, "all have come", func() bool { return p.get("received") == n+1 })
	close(gathered)
	poll.Until(t, "all but one are handled", func() bool { return b.effectCount() == n && b.broker.idle() })
	for i, e := range all {
		_, later := behind.Load(e.ID)
		switch times := called.count(e); {
		case i == bad && times != 1:
			t.Errorf("what gave up was called %d times", times)
		case times > 2:
			t.Errorf("neighbour %d was called %d times", i, times)
		case times == 2 && later:
			t.Errorf("neighbour %d behind it was called twice", i)
		}
	}
}

// Stop waits for running handlers and commits their work. It calls no handler for the other events.
func TestStopCommitsWhatRan(t *testing.T) {
	t.Parallel()
	b, p := setup(t), newProbe()
	const n = 60
	var called calls
	var waiting atomic.Bool
	proceed := make(chan struct{})
	start := func() *Router {
		cfg := b.config()
		cfg.Lanes, cfg.Listener = 1, p.listener()
		r := b.router(cfg)
		r.Handle("billing", topic, "order.changed", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
			called.add(e)
			if called.all() == 5 {
				waiting.Store(true)
				<-proceed
			}
			return effect(ctx, tx, e)
		})
		if err := r.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		return r
	}
	for i := range n {
		b.broker.publish(newChain(subjectN(i)).next(1)...)
	}
	r := start()
	poll.Until(t, "the fifth handler runs", waiting.Load)
	stopped := make(chan error, 1)
	go func() { stopped <- r.Stop(context.Background()) }()
	poll.Until(t, "the router stops", func() bool {
		run := r.running.Load()
		return run == nil
	})
	close(proceed)
	if err := <-stopped; err != nil {
		t.Fatalf("stop: %v", err)
	}
	if effects, calls := b.effectCount(), called.all(); effects != calls || calls > 6 {
		t.Errorf("%d effects of %d calls", effects, calls)
	}
	b.stop(func() *Router {
		r := start()
		poll.Until(t, "all are handled", func() bool { return b.effectCount() == n && b.broker.idle() })
		return r
	}())
	if calls := called.all(); calls != n {
		t.Errorf("%d calls for %d events", calls, n)
	}
}

// The events of one stream are all in hand, in any order, and each has a transaction of its own: none is a gap.
func TestHotStreamIsNoGap(t *testing.T) {
	t.Parallel()
	b, p := setup(t), newProbe()
	b.broker.shuffle = true
	cfg := b.config()
	cfg.BatchSize, cfg.MaxInFlight, cfg.Listener = 1, 256, p.listener()
	r := b.router(cfg)
	events := newChain("hot").next(200)
	r.Handle("billing", topic, "order.changed", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		if e.ID == events[0].ID {
			poll.Until(t, "all are in hand", func() bool { return p.get("received") == len(events) })
		}
		return effect(ctx, tx, e)
	})
	b.start(r)
	b.broker.publish(events...)
	poll.Until(t, "all are handled", func() bool { return b.effectCount() == len(events) && b.broker.idle() })
	b.wantOrder("hot", events...)
	// Those that came before the first may have waited out GapWait; what was in hand when its predecessor ran may not.
	if n := p.get("parked gap") + p.get("parked busy"); n > 0 {
		t.Errorf("%d of %d were parked", n, len(events))
	}
}

// A handler that ignores its context is abandoned and named; its aggregate's next attempt comes, and others go on.
func TestUnresponsiveHandler(t *testing.T) {
	t.Parallel()
	b, p := setup(t), newProbe()
	cfg := b.config()
	cfg.Timeout, cfg.unresponsiveAfter, cfg.Lanes, cfg.Listener = 50*time.Millisecond, 50*time.Millisecond, 2, p.listener()
	cfg.Retry = RetryPolicy{Attempts: 2, Base: time.Millisecond, Max: time.Millisecond}
	r := b.router(cfg)
	never := make(chan struct{})
	var late sync.Map
	r.Handle("billing", topic, "order.changed", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		if e.Subject != "hangs" {
			return effect(ctx, tx, e)
		}
		<-never
		_, err := tx.Exec(context.Background(), "INSERT INTO effect (type) VALUES ('late')")
		late.Store(Attempt(ctx), err)
		return err
	})
	b.start(r)
	hanging := newChain("hangs").next(3)
	b.broker.publish(hanging...)
	for i := range 100 {
		b.broker.publish(newChain(subjectN(i)).next(1)...)
	}
	poll.Until(t, "others are handled", func() bool { return b.effectCount() == 100 })
	poll.Until(t, "it is a dead letter", func() bool { return p.get("dead") == 1 })
	if err := r.Err(); err == nil || !strings.Contains(err.Error(), hanging[0].ID.String()) {
		t.Errorf("Err is %v, want one that names event %s", err, hanging[0].ID)
	}
	if n := p.get("unresponsive"); n != 2 {
		t.Errorf("%d calls were abandoned, want 2", n)
	}
	close(never)
	poll.Until(t, "it has returned", func() bool { return r.Err() == nil })
	if n := b.count("SELECT count(*) FROM effect WHERE type = 'late'"); n != 0 {
		t.Errorf("%d effects after the transaction was given up", n)
	}
}

// A handler that ends its goroutine counts an attempt, as one that panics.
func TestGoexitInAHandler(t *testing.T) {
	t.Parallel()
	b, p := setup(t), newProbe()
	cfg := b.config()
	cfg.Lanes, cfg.Listener = 1, p.listener()
	r := b.router(cfg)
	r.Handle("billing", topic, "order.changed", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		if e.Subject == "bad" {
			runtime.Goexit()
		}
		return effect(ctx, tx, e)
	})
	b.start(r)
	b.broker.publish(newChain("bad").next(1)...)
	poll.Until(t, "it is a dead letter", func() bool { return p.get("dead") == 1 })
	b.broker.publish(newChain("good").next(1)...)
	poll.Until(t, "the lane lives", func() bool { return b.effectCount() == 1 })
	if letters, err := b.operator.DeadLetters(t.Context(), operate.ParkedFilter{All: true}); err != nil || len(letters) != 1 || letters[0].Attempts != 3 {
		t.Errorf("dead letters %+v, %v; want one with 3 attempts", letters, err)
	}
}

// While a handler takes long, what comes behind it moves to Postgres once it would take the room of others.
func TestSlowHandlerLeavesRoomForOthers(t *testing.T) {
	t.Parallel()
	b, p := setup(t), newProbe()
	cfg := b.config()
	cfg.Lanes, cfg.MaxInFlight, cfg.BatchSize, cfg.Listener = 2, 8, 1, p.listener()
	r := b.router(cfg)
	slow := newChain("slow").next(40)
	done := make(chan struct{})
	r.Handle("billing", topic, "order.changed", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		if e.ID == slow[0].ID {
			<-done
		}
		return effect(ctx, tx, e)
	})
	b.start(r)
	b.broker.publish(slow...) // more than fit
	const others = 50
	for i := range others {
		b.broker.publish(newChain(subjectN(i)).next(1)...)
	}
	poll.Until(t, "others are handled meanwhile", func() bool { return b.effectCount() == others })
	close(done)
	poll.Until(t, "all are handled", func() bool { return b.effectCount() == others+len(slow) && b.broker.idle() })
	b.wantOrder("slow", slow...)
	if p.get("parked busy") == 0 || p.get("dead") != 0 {
		t.Errorf("%d moved to Postgres, %d dead letters", p.get("parked busy"), p.get("dead"))
	}
}
