package handlers

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/test/poll"
)

func (b *bundle) pause(target operate.PauseTarget) {
	b.t.Helper()
	ctx := operate.WithActor(context.Background(), operate.Actor{Name: "maria", Reason: "the bank is away"})
	if paused, err := b.operator.Pause(ctx, target); err != nil || !paused {
		b.t.Fatalf("pause %v: %v, %v", target, paused, err)
	}
}

func (b *bundle) resume(target operate.PauseTarget) {
	b.t.Helper()
	if resumed, err := b.operator.Resume(context.Background(), target); err != nil || !resumed {
		b.t.Fatalf("resume %v: %v, %v", target, resumed, err)
	}
}

// openDeliveries returns how many messages the broker has delivered and are not settled, and how many it holds back.
func (m *memory) openDeliveries() (open, pending int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range m.groups {
		g.mu.Lock()
		open, pending = open+g.open, pending+len(g.pending)
		g.mu.Unlock()
	}
	return open, pending
}

var wholeBilling = operate.PauseTarget{Kind: operate.PauseConsumer, Consumer: "billing"}

// A consumer that is paused under load handles nothing more, in no process; it keeps MaxInFlight deliveries in memory and leaves the rest
// at the broker. Resumed, it goes on with all of them, once each, in order, and no attempt was counted.
func TestPausedConsumerHoldsUnderLoad(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.broker.shuffle, b.broker.duplicate = true, 0.1
	const streams, length, inFlight = 20, 60, 40
	var running atomic.Int64
	p := newProbe()
	var routers []*Router
	for range 2 {
		cfg := b.config()
		cfg.MaxInFlight, cfg.Listener, cfg.BatchSize = inFlight, p.listener(), 8
		r := b.router(cfg)
		r.Handle("billing", topic, "order.changed", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
			running.Add(1)
			defer running.Add(-1)
			return effect(ctx, tx, e)
		})
		b.start(r)
		routers = append(routers, r)
	}
	want := map[string][]rocketflow.Event{}
	chains := map[string]*chain{}
	publish := func(n int) {
		for range n {
			for s := range streams {
				subject := subjectN(s)
				if chains[subject] == nil {
					chains[subject] = newChain(subject)
				}
				events := chains[subject].next(1)
				want[subject] = append(want[subject], events...)
				b.broker.publish(events...)
			}
		}
	}
	publish(length / 2)
	poll.Until(t, "the consumer is at work", func() bool { return b.effectCount() > streams })
	b.pause(wholeBilling)
	// The turns that had begun end; then nothing moves.
	poll.Until(t, "both processes hold", func() bool {
		return len(routers[0].Paused()) == 1 && len(routers[1].Paused()) == 1 && running.Load() == 0
	})
	// Turns that had begun may commit later. A turn takes its locks before it reads what is paused, so this waits for all of them.
	if err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "LOCK TABLE position IN EXCLUSIVE MODE")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	before := b.effectCount()
	publish(length - length/2)
	poll.Until(t, "the memory of both processes is full", func() bool {
		open, pending := b.broker.openDeliveries()
		return open == 2*inFlight && pending > 0
	})
	for range 3 { // looks of findDue, by which it could begin again
		poll.Until(t, "the pause is read again", func() bool { return b.looksAgain(routers[0]) })
	}
	if n := b.effectCount(); n != before || n == streams*length {
		t.Errorf("%d effects while the consumer is paused, %d before", n, before)
	}
	got := routers[0].Paused()[0]
	if got.Kind != PausedConsumer || got.Actor != "maria" || got.Reason != "the bank is away" || got.Since.IsZero() || routers[0].Err() != nil {
		t.Errorf("the router says %+v, %v", got, routers[0].Err())
	}
	b.resume(wholeBilling)
	resumed := time.Now()
	poll.Until(t, "it goes on", func() bool { return b.effectCount() > before })
	if took := time.Since(resumed); took > 5*time.Second {
		t.Errorf("it went on after %v", took)
	}
	poll.Until(t, "all had their effect", func() bool { return b.effectCount() >= streams*length && b.broker.idle() })
	for subject, events := range want {
		b.wantOrder(subject, events...)
	}
	if n := b.count("SELECT count(*) FROM effect WHERE attempt <> 1"); n != 0 || p.get("stalled") != 0 || p.get("dead") != 0 {
		t.Errorf("%d attempts were counted, %d stalls, %d dead letters", n, p.get("stalled"), p.get("dead"))
	}
	if n := len(routers[0].Paused()) + len(routers[1].Paused()); n != 0 {
		t.Errorf("%d pauses are reported after the resume", n)
	}
}

// A pause holds from the moment that it has committed, before any process has looked for it: an event that comes then is not handled. An
// attempt that comes due is not made.
func TestPauseHoldsBeforeItIsNoticed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cfg := b.config()
	cfg.Retry = RetryPolicy{Attempts: 5, Base: 100 * time.Millisecond, Max: 100 * time.Millisecond}
	r := b.router(cfg)
	var fail atomic.Bool
	fail.Store(true)
	r.Handle("billing", topic, "order.changed", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		if e.Subject == "failing" && fail.Load() {
			return errors.New("the bank is away")
		}
		return effect(ctx, tx, e)
	})
	b.start(r)
	c := (*r.running.Load())[0]
	poll.Until(t, "the first look, after which the next is seconds away", func() bool { return c.pauses.Load() != nil })
	stream := newChain("held")
	var all []rocketflow.Event
	for _, target := range []operate.PauseTarget{
		wholeBilling,
		{Kind: operate.PauseHandler, Consumer: "billing", Topic: topic, Type: "order.changed"},
		{Kind: operate.PauseStream, Consumer: "billing", Topic: topic, Subject: "held"},
	} {
		poll.Until(t, "nothing is paused", func() bool { return len(r.Paused()) == 0 && b.count("SELECT count(*) FROM parked") == 0 })
		b.pause(target)
		events := stream.next(2)
		b.broker.publish(events...)
		poll.Until(t, "the pause is noticed", func() bool { return len(r.Paused()) == 1 })
		b.wantOrder("held", all...)
		b.resume(target)
		all = append(all, events...)
		poll.Until(t, "it goes on", func() bool { return len(b.effects("held")) == len(all) })
	}
	b.wantOrder("held", all...)

	b.broker.publish(loose("order.changed", "failing"))
	poll.Until(t, "it has failed", func() bool { return b.parkedCount(Retry) == 1 })
	b.pause(wholeBilling)
	poll.Until(t, "the pause is noticed", func() bool { return len(r.Paused()) == 1 })
	fail.Store(false)
	attempts := b.count("SELECT attempts FROM parked")
	for range 2 {
		b.looksAgain(r)
	}
	if n := b.count("SELECT attempts FROM parked"); n != attempts || len(b.effects("failing")) != 0 {
		t.Errorf("%d attempts, %d before", n, attempts)
	}
	b.resume(wholeBilling)
	poll.Until(t, "it is tried again", func() bool { return len(b.effects("failing")) == 1 })
	if got := b.effects("failing")[0].Attempt; got != attempts+1 {
		t.Errorf("attempt %d after %d failed ones", got, attempts)
	}
}

// looksAgain waits for a look of the first consumer for due events.
func (b *bundle) looksAgain(r *Router) bool {
	c := (*r.running.Load())[0]
	before := c.pauses.Load()
	poll.Until(b.t, "a look", func() bool { return c.pauses.Load() != before })
	return true
}

// A paused handler parks its events and what is behind them, and nothing else waits. Resumed, they are handled once each and in order,
// also the one that had failed before, whose attempts still count.
func TestPausedHandlerHoldsItsEventsOnly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.broker.shuffle, b.broker.duplicate = true, 0.2
	cfg := b.config()
	p := newProbe()
	cfg.Listener = p.listener()
	cfg.Retry = RetryPolicy{Attempts: 5, Base: 300 * time.Millisecond, Max: 300 * time.Millisecond}
	r := b.router(cfg)
	var broken atomic.Bool
	broken.Store(true)
	r.Handle("billing", topic, "order.changed", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		if broken.Load() && e.Subject == "failing" {
			return errors.New("the bank is away")
		}
		return effect(ctx, tx, e)
	})
	r.Handle("billing", topic, "order.seen", effect)
	b.start(r)
	target := operate.PauseTarget{Kind: operate.PauseHandler, Consumer: "billing", Topic: topic, Type: "order.changed"}

	failing := newChain("failing").next(2)
	b.broker.publish(failing...)
	poll.Until(t, "one has failed", func() bool { return b.count("SELECT count(*) FROM parked WHERE attempts > 0") == 1 })
	b.pause(target)
	broken.Store(false)
	poll.Until(t, "the next attempt is held", func() bool { return b.parkedCount(Paused) == 1 })
	attempts := b.count("SELECT attempts FROM parked WHERE reason = 'paused'")
	ordered, mixed := newChain("ordered").next(20), newChain("mixed").next(20)
	for i := range mixed {
		if i%2 == 0 {
			mixed[i].Type = "order.seen" // before a held one, and behind it
		}
	}
	alone, free := loose("order.changed", "alone"), loose("order.seen", "free")
	b.broker.publish(append(append([]rocketflow.Event{alone, free}, ordered...), mixed...)...)
	poll.Until(t, "all is settled with the broker", b.broker.idle)
	poll.Until(t, "what isn't held had its effect", func() bool { return b.effectCount() == 2 })
	b.wantOrder("mixed", mixed[0])
	if n := b.parkedCount(Paused); n != 4 {
		t.Errorf("%d events are parked as paused, want the first of each stream and the one without order", n)
	}
	if n := b.count("SELECT count(*) FROM parked"); n != 2+20+19+1 {
		t.Errorf("%d events are parked", n)
	}
	list, err := b.operator.Pauses(t.Context(), "billing")
	if err != nil || len(list) != 1 || list[0].Held != 4 || list[0].Actor != "maria" {
		t.Errorf("pauses %+v, %v", list, err)
	}
	b.resume(target)
	poll.Until(t, "all had their effect", func() bool { return b.effectCount() == 2+20+20+2 && b.count("SELECT count(*) FROM parked") == 0 })
	b.wantOrder("ordered", ordered...)
	b.wantOrder("mixed", mixed...)
	b.wantOrder("failing", failing...)
	if rows := b.effects("failing"); rows[0].Attempt != attempts+1 || attempts == 0 {
		t.Errorf("attempt %d after %d failed ones", rows[0].Attempt, attempts)
	}
	if n := b.count("SELECT count(*) FROM effect WHERE attempt <> 1 AND subject <> 'failing'"); n != 0 || p.get("dead") != 0 {
		t.Errorf("%d attempts were counted, %d dead letters", n, p.get("dead"))
	}
}

// A paused stream holds, also across a restart, and the others go on.
func TestPausedStreamHoldsAcrossARestart(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.billing(effect)
	held, other := newChain("held"), newChain("other")
	begin := held.next(1)
	b.broker.publish(begin...)
	poll.Until(t, "the stream has begun", func() bool { return b.effectCount() == 1 })
	target := operate.PauseTarget{Kind: operate.PauseStream, Consumer: "billing", Topic: topic, Subject: "held"}
	b.pause(target)
	more := held.next(10)
	b.broker.publish(more[:5]...)
	poll.Until(t, "they are parked", func() bool { return b.count("SELECT count(*) FROM parked") == 5 })
	b.stop(first)
	second := b.billing(effect)
	b.broker.publish(more[5:]...)
	free := other.next(10)
	b.broker.publish(free...)
	poll.Until(t, "the other stream goes on", func() bool { return len(b.effects("other")) == 10 && b.count("SELECT count(*) FROM parked") == 10 })
	b.wantOrder("held", begin...)
	if list := second.Paused(); len(list) != 1 || list[0].String() != "the streams of billing with subject held on topic orders" {
		t.Errorf("paused: %v", list)
	}
	b.stop(second)
	b.resume(target) // while no process runs
	b.billing(effect)
	poll.Until(t, "it goes on", func() bool { return len(b.effects("held")) == 11 })
	b.wantOrder("held", append(begin, more...)...)
}

// A pause that was ended while a turn that had read it was still open strands nothing.
func TestResumeDuringATurnStrandsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.billing(effect)
	target := operate.PauseTarget{Kind: operate.PauseStream, Consumer: "billing", Topic: topic, Subject: "s"}
	c := newChain("s")
	var all []rocketflow.Event
	for i := range 15 {
		b.pause(target)
		events := c.next(4)
		all = append(all, events...)
		b.broker.publish(events...)
		if i%3 == 0 {
			poll.Until(t, "the pause was noticed", func() bool { return len(r.Paused()) == 1 })
		}
		b.resume(target)
	}
	poll.Until(t, fmt.Sprintf("all %d had their effect", len(all)), func() bool { return len(b.effects("s")) == len(all) })
	b.wantOrder("s", all...)
}

// A router that holds a paused consumer stops at once, and gives what it holds back to the broker.
func TestStopWhilePausedGivesBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.billing(effect)
	b.pause(wholeBilling)
	events := newChain("1").next(10)
	b.broker.publish(events...)
	poll.Until(t, "it holds them", func() bool { open, _ := b.broker.openDeliveries(); return open == 10 && len(first.Paused()) == 1 })
	b.stop(first)
	if open, pending := b.broker.openDeliveries(); open != 0 || pending != 10 || b.effectCount() != 0 {
		t.Errorf("%d are held, %d are at the broker, %d had an effect", open, pending, b.effectCount())
	}
	b.billing(effect)
	b.resume(wholeBilling)
	poll.Until(t, "they are handled", func() bool { return b.effectCount() == 10 })
	b.wantOrder("1", events...)
}

// What can't be paused is refused.
func TestPauseRefusesWhatIsNotThere(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.billing(effect)
	for _, c := range []struct {
		target operate.PauseTarget
		want   error
	}{
		{operate.PauseTarget{Kind: operate.PauseConsumer, Consumer: "biling"}, operate.ErrUnknownConsumer},
		{operate.PauseTarget{Kind: operate.PauseHandler, Consumer: "billing", Topic: topic, Type: "order.chnged"}, operate.ErrUnknownHandler},
		{operate.PauseTarget{Kind: operate.PauseStream, Consumer: "billing", Topic: "other", Subject: "1"}, operate.ErrUnknownConsumer},
	} {
		if _, err := b.operator.Pause(t.Context(), c.target); !errors.Is(err, c.want) {
			t.Errorf("%v: %v", c.target, err)
		}
	}
	for _, bad := range []operate.PauseTarget{
		{}, {Kind: "all", Consumer: "billing"}, {Kind: operate.PauseConsumer, Consumer: "billing", Topic: topic},
		{Kind: operate.PauseHandler, Consumer: "billing"}, {Kind: operate.PauseStream, Consumer: "billing", Topic: topic},
		{Kind: operate.PauseStream, Consumer: "billing", Topic: topic, Subject: "1", Type: "x"},
	} {
		var field *rocketflow.FieldError
		if _, err := b.operator.Pause(t.Context(), bad); !errors.As(err, &field) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	b.pause(wholeBilling)
	if again, err := b.operator.Pause(t.Context(), wholeBilling); again || err != nil {
		t.Errorf("paused twice: %v, %v", again, err)
	}
	b.resume(wholeBilling)
	if again, err := b.operator.Resume(t.Context(), wholeBilling); again || err != nil {
		t.Errorf("resumed twice: %v, %v", again, err)
	}
	audit, err := b.operator.Audit(t.Context(), operate.AuditFilter{ID: "billing"})
	if err != nil || len(audit) != 2 || audit[0].Action != operate.ActionResume || audit[1].Action != operate.ActionPause || audit[1].Reason != "the bank is away" {
		t.Errorf("audit: %+v, %v", audit, err)
	}
}

// A delivery that the broker takes back leaves the memory of a paused consumer.
func TestPausedConsumerForgetsWhatTheBrokerTakesBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.billing(effect)
	b.pause(wholeBilling)
	c := (*r.running.Load())[0]
	poll.Until(t, "the consumer holds", func() bool { return c.queue.isPaused() })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	for _, e := range []rocketflow.Event{loose("order.changed", "1"), newChain("2").next(1)[0]} {
		go func() { ended <- c.receive(ctx, broker.Delivery{Message: wire.MessageOf(e), Attempt: 1}) }()
	}
	size := func() int {
		c.queue.mu.Lock()
		defer c.queue.mu.Unlock()
		return len(c.queue.ready) + len(c.queue.groups) + c.queue.waiting
	}
	poll.Until(t, "both wait", func() bool { return size() == 2+1+2 })
	cancel()
	for range 2 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	if n := size(); n != 0 {
		t.Errorf("%d entries are left", n)
	}
}
