package outbox_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// publish publishes so many events in one transaction, dealt to accounts in turn.
func (b *bundle) publish(ctx context.Context, events int, accounts ...string) error {
	return testdb.Retry(func() error { return b.publishOnce(ctx, events, accounts...) })
}

func (b *bundle) publishOnce(ctx context.Context, events int, accounts ...string) error {
	return b.outbox.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
		for i := range events {
			if err := tx.Publish(ctx, credited{accounts[i%len(accounts)], int64(i)}); err != nil {
				return err
			}
		}
		return nil
	})
}

// What gathers while requests are on their way goes in groups, of bounded size, and no stream is in two at a time.
func TestRelaySendsInGroupsInOrder(t *testing.T) {
	t.Parallel()
	var acks atomic.Int64
	b := setup(t, func(c *outbox.Config) {
		c.Path, c.RelayGroup = outbox.Relay, 10
		c.Listener = &outbox.Listener{Acked: func(outbox.AckedInfo) { acks.Add(1) }}
	})
	const events = 300
	if err := b.publish(t.Context(), events, "a", "bb", "ccc", "dddd", "e", "ff"); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "events", func() bool { return len(b.broker.events()) == events })
	chain(t, b.broker.events())
	b.broker.mu.Lock()
	if n := len(b.broker.groups); n > events/5 || slices.Max(b.broker.groups) > 10 {
		t.Errorf("%d requests, sizes %v", n, b.broker.groups)
	}
	b.broker.mu.Unlock()
	poll.Until(t, "acks", func() bool { return b.count(t, "outbox_ack") == events })
	if n := acks.Load(); n > events/3 {
		t.Errorf("%d inserts for %d acks", n, events)
	}
}

func TestRelayBoundsTheBytesOfARequest(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *outbox.Config) { c.Path = outbox.Relay })
	err := b.outbox.Within(t.Context(), func(ctx context.Context, tx rocketflow.Tx) error {
		for range 10 {
			if err := tx.Publish(ctx, rocketflow.Event{Topic: "t", Type: "big", Subject: "a", Body: []byte(strings.Repeat("x", 300<<10))}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "events", func() bool { return len(b.broker.events()) == 10 })
	b.broker.mu.Lock()
	defer b.broker.mu.Unlock()
	if m := slices.Max(b.broker.groups); m > 3 { // 1 MiB
		t.Errorf("%d in a request", m)
	}
}

// An event that the broker rejects holds back no other of its request.
func TestRejectedEventHoldsBackNoOther(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *outbox.Config) { c.Path = outbox.Relay })
	b.broker.mu.Lock()
	b.broker.refuse = "b"
	b.broker.mu.Unlock()
	if err := b.publish(t.Context(), 30, "a", "b", "c"); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the others", func() bool { return len(b.broker.events()) == 20 })
	b.broker.mu.Lock()
	b.broker.refuse = ""
	b.broker.mu.Unlock()
	poll.Until(t, "all", func() bool { return len(b.broker.events()) == 30 })
	chain(t, b.broker.events())
}

// Memory is bounded, also while nothing can be sent: the rest is owed, and found.
func TestRelayMemoryIsBounded(t *testing.T) {
	t.Parallel()
	var full atomic.Int64
	b := setup(t, func(c *outbox.Config) {
		c.Path, c.RelayBuffer = outbox.Relay, 8
		c.Listener = &outbox.Listener{RelayFull: func(rocketflow.Event) { full.Add(1) }}
	})
	b.broker.mu.Lock()
	b.broker.hold = make(chan struct{})
	b.broker.mu.Unlock()
	for i := range 20 {
		if err := b.publish(t.Context(), 1, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := full.Load(); n != 12 {
		t.Errorf("%d events did not fit, want 12", n)
	}
	close(b.broker.hold)
	poll.Until(t, "all", func() bool { return b.count(t, "outbox_ack") == 20 })
	chain(t, b.broker.events())
}

// Several processes relay side by side: each what it committed.
func TestProcessesRelayTheirOwnEvents(t *testing.T) {
	t.Parallel()
	alone := func(c *outbox.Config) { c.Path, c.SweepGrace = outbox.Relay, time.Hour }
	b := setup(t, alone)
	other := &bundle{pool: b.pool, schema: b.schema, broker: b.broker}
	other.outbox = b.start(t, alone)
	for i := range 50 {
		for _, box := range []*bundle{b, other} {
			if err := box.publish(t.Context(), 2, fmt.Sprint(i%3), "x"); err != nil {
				t.Fatal(err)
			}
		}
	}
	poll.Until(t, "acks", func() bool { return b.count(t, "outbox_ack") == 200 })
	if n := len(b.broker.events()); n != 200 {
		t.Errorf("%d events were sent, want 200, each once", n)
	}
}

// The first event after a pause goes at once; what follows gathers for the pace, or until a request is full. Stop doesn't
// wait for the pace.
func TestRelayPaceGathersEvents(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *outbox.Config) {
		c.Path, c.RelayGroup, c.RelayPace, c.SweepGrace = outbox.Relay, 10, time.Hour, time.Hour
	})
	one := func(events int) {
		t.Helper()
		for range events {
			if err := b.publish(t.Context(), 1, "a"); err != nil {
				t.Fatal(err)
			}
		}
	}
	groups := func() []int {
		b.broker.mu.Lock()
		defer b.broker.mu.Unlock()
		return slices.Clone(b.broker.groups)
	}
	one(1)
	poll.Until(t, "the first", func() bool { return len(groups()) == 1 })
	one(10)
	poll.Until(t, "a full request", func() bool { return len(groups()) == 2 })
	one(2)
	if err := b.outbox.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := groups(); !slices.Equal(got, []int{1, 10, 2}) {
		t.Errorf("sent in groups of %v, want 1, 10, 2", got)
	}
	chain(t, b.broker.events())
}
