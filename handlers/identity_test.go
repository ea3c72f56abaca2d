package handlers

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/operate"
)

// An id belongs to a source. Another content under the same source and id is a dead letter.
func TestIdentityIsSourceAndID(t *testing.T) {
	t.Parallel()
	b, p, r := setupProbed(t)
	r.Handle("billing", topic, "order.seen", effect)
	b.start(r)
	mine := loose("order.seen", "a")
	theirs, changed := mine, mine
	theirs.Source = "elsewhere"
	changed.Body = []byte(`{"order":"another"}`)
	b.broker.publish(mine, mine, theirs)
	poll.Until(t, "both are handled, once each", func() bool { return b.effectCount() == 2 && p.get("duplicate") == 1 && b.broker.idle() })
	for range 2 {
		b.broker.publish(changed)
	}
	poll.Until(t, "the conflict is a dead letter", func() bool { return p.get("dead") >= 1 && b.broker.idle() })
	letters, err := b.operator.DeadLetters(t.Context(), operate.ParkedFilter{All: true})
	if err != nil || len(letters) != 1 || !strings.Contains(letters[0].LastError, mine.ID.String()) || string(letters[0].Event.Body) != string(changed.Body) {
		t.Errorf("dead letters %+v (%v), want one that names %s", letters, err, mine.ID)
	}
	if n := b.effectCount(); n != 2 {
		t.Errorf("%d effects, want 2", n)
	}
}

// version starts a router that has handlers for these types.
func (b *bundle) version(p *probe, types ...string) *Router {
	cfg := b.config()
	cfg.Listener = p.listener()
	r := b.router(cfg)
	for _, eventType := range types {
		r.Handle("billing", topic, eventType, effect)
	}
	b.start(r)
	return r
}

// A version that lacks the handler meets a copy of an event that a version with the handler has handled: the copy is a
// duplicate and doesn't wait for that version. Another content with its identity is a dead letter, as it is there.
func TestCopyOfAHandledEventIsADuplicateWithoutTheHandler(t *testing.T) {
	t.Parallel()
	b, p := setup(t), newProbe()
	handled, isNew := loose("order.closed", "a"), loose("order.closed", "b")
	second := b.version(p, "order.seen", "order.closed")
	b.broker.publish(handled)
	poll.Until(t, "it is handled", func() bool { return b.effectCount() == 1 && b.broker.idle() })
	b.stop(second)
	b.version(p, "order.seen")
	changed := handled
	changed.Body = []byte(`{"order":"another"}`)
	b.broker.publish(handled, isNew, changed, loose("order.unknown", "a"))
	poll.Until(t, "all are settled", func() bool {
		return p.get("duplicate") == 1 && p.get("parked unhandled") == 1 && p.get("dead") == 1 && p.get("skipped") == 1 && b.broker.idle()
	})
	waiting, err := b.operator.ParkedEvents(t.Context(), operate.ParkedFilter{})
	if err != nil || len(waiting) != 1 || waiting[0].Event.ID != isNew.ID || waiting[0].Reason != operate.StateUnhandled {
		t.Errorf("parked: %+v, %v", waiting, err)
	}
	if n := b.effectCount(); n != 1 {
		t.Errorf("%d effects, want 1", n)
	}
}

// The same id, parked for one source, doesn't stand in the way of another source's event.
func TestParkedBesideAnotherOfTheSameID(t *testing.T) {
	t.Parallel()
	b, p := setup(t), newProbe()
	cfg := b.config()
	cfg.Listener, cfg.Retry.Attempts = p.listener(), 1
	r := b.router(cfg)
	r.Handle("billing", topic, "order.bad", failing("a", always, errBroken))
	b.start(r)
	mine := loose("order.bad", "a")
	theirs := mine
	theirs.Source = "elsewhere"
	b.broker.publish(mine, theirs, mine, theirs)
	poll.Until(t, "both are dead letters", func() bool { return b.parkedCount(DeadLetter) == 2 && b.broker.idle() })
	if n, err := b.operator.DiscardDeadLetters(t.Context(), operate.ParkedFilter{Source: "elsewhere"}); err != nil || n != 1 || b.parkedCount(DeadLetter) != 1 {
		t.Errorf("discarded %d (%v), %d left", n, err, b.parkedCount(DeadLetter))
	}
}

// An event that is delivered again while it waits for its next attempt has its effect all the same.
func TestDeliveredAgainWhileParked(t *testing.T) {
	t.Parallel()
	b, p := setup(t), newProbe()
	cfg := b.config()
	cfg.Listener, cfg.Retry = p.listener(), RetryPolicy{Attempts: 5, Base: 300 * time.Millisecond, Max: 300 * time.Millisecond}
	r := b.router(cfg)
	r.Handle("billing", topic, "order.seen", failing("a", 1, errBroken))
	b.start(r)
	e := loose("order.seen", "a")
	b.broker.publish(e)
	poll.Until(t, "it is parked", func() bool { return b.parkedCount(Retry) == 1 })
	b.broker.publish(e, e)
	poll.Until(t, "it had its effect", func() bool { return b.effectCount() == 1 && b.broker.idle() })
	b.broker.publish(e)
	poll.Until(t, "it is a duplicate then", func() bool { return p.get("duplicate") >= 1 && b.broker.idle() })
	if n := b.effectCount(); n != 1 {
		t.Errorf("%d effects", n)
	}
}

// A sequence far ahead of the clock is a dead letter: were it the position, all genuine ones would be duplicates.
func TestForgedSequenceIsADeadLetter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.router(b.config())
	r.Handle("billing", topic, "order.changed", effect)
	b.start(r)
	chain := newChain("a")
	first := chain.next(1)
	b.broker.publish(first...)
	poll.Until(t, "the first is handled", func() bool { return b.effectCount() == 1 })
	forged := loose("order.changed", "a")
	forged.Sequence, forged.Previous = time.Now().Add(24*time.Hour).UnixMicro(), first[0].Sequence
	b.broker.publish(forged)
	poll.Until(t, "the forged one is a dead letter", func() bool { return b.parkedCount(DeadLetter) == 1 })
	rest := chain.next(3)
	b.broker.publish(rest...)
	poll.Until(t, "genuine ones are handled", func() bool { return b.effectCount() == 4 && b.broker.idle() })
	b.wantOrder("a", append(first, rest...)...)
}

// An operator sets a position back that a mistaken event has moved.
func TestResetPosition(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.router(b.config())
	r.Handle("billing", topic, "order.changed", effect)
	b.start(r)
	chain := newChain("a")
	first := chain.next(1)
	mistaken := loose("order.changed", "a")
	mistaken.Sequence, mistaken.Previous = time.Now().Add(30*time.Minute).UnixMicro(), first[0].Sequence
	b.broker.publish(first...)
	poll.Until(t, "the first is handled", func() bool { return b.effectCount() == 1 })
	b.broker.publish(mistaken)
	poll.Until(t, "the mistaken one is handled", func() bool { return b.effectCount() == 2 })
	if err := b.operator.ResetPosition(t.Context(), "billing", first[0].Stream(), first[0].Sequence); err != nil {
		t.Fatal(err)
	}
	b.broker.publish(chain.next(2)...)
	poll.Until(t, "genuine ones are handled", func() bool { return b.effectCount() == 4 })
	if err := b.operator.ResetPosition(t.Context(), "billing", rocketflow.Stream{Source: "x", Topic: "y", Subject: "z"}, 1); !errors.Is(err, operate.ErrUnknownStream) {
		t.Errorf("a stream without a position: %v", err)
	}
}

// A new consumer that begins at the newest events skips what was recorded before its first start, also when it starts
// again; one that begins at the oldest handles all.
func TestConsumerHandlesEventsSinceItsBeginning(t *testing.T) {
	t.Parallel()
	for name, refuses := range map[string]bool{"": false, "on a broker where new groups begin at the oldest message": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.broker.beginsOldest = refuses
			testBeginning(t, b)
		})
	}
}

func testBeginning(t *testing.T, b *bundle) {
	old := newChain("a")
	b.broker.publish(old.at(time.Now().Add(-time.Hour), 3)...)
	b.broker.publish(func() rocketflow.Event {
		e := loose("order.changed", "a")
		e.Time = time.Now().Add(-time.Hour)
		return e
	}())
	for restart := range 2 {
		r := b.router(b.config())
		r.Handle("oldest", topic, "order.changed", effect)
		r.Handle("newest", topic, "order.changed", effect)
		r.Configure("newest", ConsumerConfig{Begin: broker.BeginNewest()})
		if err := r.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.broker.publish(old.next(2)...)
		poll.Until(t, "both consumers have read all", func() bool {
			return b.count("SELECT count(*) FROM effect WHERE consumer = 'oldest'") == 4+2*(restart+1) && b.broker.idle() &&
				b.count("SELECT count(*) FROM parked") == 0
		})
		if n := b.count("SELECT count(*) FROM effect WHERE consumer = 'newest'"); n != 2*(restart+1) {
			t.Errorf("%d effects of the one that begins at the newest, want %d", n, 2*(restart+1))
		}
		b.stop(r)
	}
}

// By default a failing event is tried for about a day.
func TestRetriesTakeADay(t *testing.T) {
	t.Parallel()
	p := RetryPolicy{}.withDefaults()
	var all time.Duration
	for n := 1; n < p.Attempts; n++ {
		all += p.after(n)
	}
	if all < 20*time.Hour || all > 28*time.Hour {
		t.Errorf("retries take %v in all", all)
	}
}

// A turn that found a handler recorded parks its event when the handler has just been retired: the event is skipped all the same, and
// what follows in its stream runs. Other events that wait for a handler stay.
func TestParkedBesideARetirement(t *testing.T) {
	t.Parallel()
	b, p := setup(t), newProbe()
	b.stop(b.version(p, "order.seen", "order.closed", "order.paid"))
	b.version(p, "order.seen")
	events := newChain("a").next(2)
	events[0].Type, events[1].Type = "order.closed", "order.seen"
	b.broker.publish(append(events, loose("order.paid", "b"))...)
	poll.Until(t, "they wait", func() bool { return p.get("parked unhandled") >= 2 && b.broker.idle() })
	// What a retirement leaves that was beside the turn.
	if _, err := b.pool.Exec(t.Context(), "DELETE FROM consumer_handler WHERE type = 'order.closed'"); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the stream goes on", func() bool { return b.effectCount() == 1 })
	waiting, err := b.operator.ParkedEvents(t.Context(), operate.ParkedFilter{})
	if err != nil || len(waiting) != 1 || waiting[0].Event.Type != "order.paid" || waiting[0].Reason != operate.StateUnhandled {
		t.Errorf("parked: %+v, %v", waiting, err)
	}
}
