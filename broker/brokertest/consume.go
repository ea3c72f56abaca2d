package brokertest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/rocketflow/rocketflow/broker"
)

func testHandlerError(t *testing.T, b *bench) {
	testRedelivery(t, b, func() error { return errors.New("not now") })
}

func testHandlerPanic(t *testing.T, b *bench) {
	testRedelivery(t, b, func() error { panic("not now") })
}

func testHandlerGoexit(t *testing.T, b *bench) {
	testRedelivery(t, b, func() error { runtime.Goexit(); return nil })
}

func testRedelivery(t *testing.T, b *bench, fail func() error) {
	topic := b.topic(t, 1, broker.Normal)
	in := newInbox()
	var tries atomic.Int32
	b.consume(t, b.Driver, broker.Subscription{Group: "group-" + unique(), Topics: []string{topic}}, func(ctx context.Context, d broker.Delivery) error {
		if string(d.Body) == "bad" && tries.Add(1) < 3 {
			return fail()
		}
		return in.put(ctx, d)
	})
	b.send(t, broker.Message{Topic: topic, Body: []byte("bad")})
	b.send(t, broker.Message{Topic: topic, Body: []byte("good")})
	in.waitBody(t, "good")
	in.waitBody(t, "bad")
	if n := tries.Load(); n != 3 {
		t.Errorf("%d tries, want 3", n)
	}
}

func testDrain(t *testing.T, b *bench) {
	topic := b.topic(t, 1, broker.Normal)
	group := "group-" + unique()
	started, release := make(chan struct{}), make(chan struct{})
	var calls, finished atomic.Int32
	c := b.consume(t, b.Driver, broker.Subscription{Group: group, Topics: []string{topic}, MaxInFlight: 1}, func(context.Context, broker.Delivery) error {
		if calls.Add(1) == 1 {
			close(started)
		}
		<-release
		finished.Add(1)
		return nil
	})
	for i := range 3 {
		b.send(t, broker.Message{Topic: topic, Body: fmt.Appendf(nil, "m%d", i)})
	}
	wait(t, "first message", started)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if err := c.Stop(b.ctx); err != nil {
			t.Errorf("stop: %v", err)
		}
		if calls.Load() != finished.Load() {
			t.Errorf("stop returned with %d handlers called and %d finished", calls.Load(), finished.Load())
		}
	}()
	select {
	case <-stopped:
		t.Fatal("stop returned while a handler was running")
	default:
	}
	close(release)
	wait(t, "stop", stopped)
	settled := int(calls.Load()) // of one queue, so these are the first
	// What was settled is stored; the rest comes to the next consumer of the group.
	b.send(t, broker.Message{Topic: topic, Body: []byte("m3")})
	in := newInbox()
	b.consume(t, b.Driver, broker.Subscription{Group: group, Topics: []string{topic}}, in.put)
	for i := range 4 {
		body := fmt.Sprintf("m%d", i)
		if i >= settled {
			in.waitBody(t, body)
		} else if in.count(body) != 0 {
			t.Errorf("%s came again, which was settled before the stop", body)
		}
	}
	if n := int(calls.Load()); n != settled {
		t.Errorf("%d handlers were called after the stop", n-settled)
	}
}

func testStopTwice(t *testing.T, b *bench) {
	topic := b.topic(t, 1, broker.Normal)
	in := newInbox()
	s := broker.Subscription{Group: "group-" + unique(), Topics: []string{topic}}
	c := b.consume(t, b.Driver, s, in.put)
	if err := c.Err(); err != nil {
		t.Errorf("healthy consumer says %v", err)
	}
	stop(t, c)
	stop(t, c)
	b.consume(t, b.Driver, s, in.put)
	b.send(t, broker.Message{Topic: topic, Body: []byte("after")})
	in.waitBody(t, "after")
}

func testMaxInFlight(t *testing.T, b *bench) {
	const n, limit = 60, 4
	topics := []string{b.topic(t, 4, broker.Normal), b.topic(t, 4, broker.Normal)}
	in := newInbox()
	var now, most atomic.Int32
	full, goOn := make(chan struct{}), make(chan struct{})
	b.consume(t, b.Driver, broker.Subscription{Group: "group-" + unique(), Topics: topics, MaxInFlight: limit, MaxBuffered: 16}, func(ctx context.Context, d broker.Delivery) error {
		defer now.Add(-1)
		k := now.Add(1)
		for m := most.Load(); k > m && !most.CompareAndSwap(m, k); m = most.Load() {
		}
		if k == limit {
			select {
			case <-goOn:
			default:
				close(full)
			}
		}
		<-goOn
		return in.put(ctx, d)
	})
	for i := range n {
		b.send(t, broker.Message{Topic: topics[i%2], Body: fmt.Appendf(nil, "m%d", i)})
	}
	wait(t, "as many handlers as allowed", full)
	close(goOn)
	in.wait(t, n)
	if m := most.Load(); m != limit {
		t.Errorf("%d handlers at once, want %d", m, limit)
	}
}

func testSeveralTopics(t *testing.T, b *bench) {
	one, two := b.topic(t, 1, broker.Normal), b.topic(t, 3, broker.Normal)
	in := b.subscribe(t, one, two)
	b.send(t, broker.Message{Topic: one, Body: []byte("one")})
	b.send(t, broker.Message{Topic: two, Body: []byte("two")})
	if d := in.waitBody(t, "one"); d.Topic != one {
		t.Errorf("topic %s, want %s", d.Topic, one)
	}
	if d := in.waitBody(t, "two"); d.Topic != two {
		t.Errorf("topic %s, want %s", d.Topic, two)
	}
}

// testGroupChanges lets consumers of a group come and go under load. Each message must be handled at least once.
func testGroupChanges(t *testing.T, b *bench) {
	const rounds, each = 6, 50
	topic := b.topic(t, 4, broker.Normal)
	s := broker.Subscription{Group: "group-" + unique(), Topics: []string{topic}}
	in := newInbox()
	b.consume(t, b.Driver, s, in.put)
	other := b.Open(t)
	sent := 0
	for round := range rounds {
		var c broker.Consumer
		if round%2 == 0 {
			c = b.consume(t, other, s, in.put)
		}
		for range each {
			b.send(t, broker.Message{Topic: topic, Body: fmt.Appendf(nil, "m%d", sent)})
			sent++
		}
		if c != nil {
			stop(t, c)
		}
	}
	in.until(t, "each message", func(all []broker.Delivery) bool {
		seen := map[string]bool{}
		for _, d := range all {
			seen[string(d.Body)] = true
		}
		return len(seen) == sent
	})
}
