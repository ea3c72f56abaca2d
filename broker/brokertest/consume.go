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

func testRedeliveryAfterError(t *testing.T, e *env) {
	testRedelivery(t, e, func() error { return errors.New("not now") })
}

func testRedeliveryAfterPanic(t *testing.T, e *env) {
	testRedelivery(t, e, func() error { panic("not now") })
}

func testRedeliveryAfterGoexit(t *testing.T, e *env) {
	testRedelivery(t, e, func() error { runtime.Goexit(); return nil })
}

func testRedelivery(t *testing.T, e *env, fail func() error) {
	topic := e.topic(t, 1, broker.Normal)
	received := newCollector()
	var attempts atomic.Int32
	e.consume(t, e.Driver, broker.Subscription{Group: "group-" + unique(), Topics: []string{topic}}, func(ctx context.Context, d broker.Delivery) error {
		if string(d.Body) == "bad" && attempts.Add(1) < 3 {
			return fail()
		}
		return received.put(ctx, d)
	})
	e.send(t, broker.Message{Topic: topic, Body: []byte("bad")})
	e.send(t, broker.Message{Topic: topic, Body: []byte("good")})
	received.waitBody(t, "good")
	received.waitBody(t, "bad")
	if n := attempts.Load(); n != 3 {
		t.Errorf("%d calls, want 3", n)
	}
}

func testDrainOnStop(t *testing.T, e *env) {
	topic := e.topic(t, 1, broker.Normal)
	group := "group-" + unique()
	started, release := make(chan struct{}), make(chan struct{})
	var calls, finished atomic.Int32
	c := e.consume(t, e.Driver, broker.Subscription{Group: group, Topics: []string{topic}, MaxInFlight: 1}, func(context.Context, broker.Delivery) error {
		if calls.Add(1) == 1 {
			close(started)
		}
		<-release
		finished.Add(1)
		return nil
	})
	for i := range 3 {
		e.send(t, broker.Message{Topic: topic, Body: fmt.Appendf(nil, "m%d", i)})
	}
	wait(t, "first message", started)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if err := c.Stop(e.ctx); err != nil {
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
	settled := int(calls.Load()) // the first ones, since there is one queue
	// It is stored which messages are settled; the next consumer of the group gets the others.
	e.send(t, broker.Message{Topic: topic, Body: []byte("m3")})
	received := newCollector()
	e.consume(t, e.Driver, broker.Subscription{Group: group, Topics: []string{topic}}, received.put)
	for i := range 4 {
		body := fmt.Sprintf("m%d", i)
		if i >= settled {
			received.waitBody(t, body)
		} else if received.count(body) != 0 {
			t.Errorf("%s was delivered again although it was settled before the stop", body)
		}
	}
	if n := int(calls.Load()); n != settled {
		t.Errorf("%d handlers were called after the stop", n-settled)
	}
}

func testStopTwice(t *testing.T, e *env) {
	topic := e.topic(t, 1, broker.Normal)
	received := newCollector()
	s := broker.Subscription{Group: "group-" + unique(), Topics: []string{topic}}
	c := e.consume(t, e.Driver, s, received.put)
	if err := c.Err(); err != nil {
		t.Errorf("Err of a healthy consumer: %v", err)
	}
	stop(t, c)
	stop(t, c)
	e.consume(t, e.Driver, s, received.put)
	e.send(t, broker.Message{Topic: topic, Body: []byte("after")})
	received.waitBody(t, "after")
}

func testMaxInFlight(t *testing.T, e *env) {
	const n, limit = 60, 4
	topics := []string{e.topic(t, 4, broker.Normal), e.topic(t, 4, broker.Normal)}
	received := newCollector()
	var running, most atomic.Int32
	full, release := make(chan struct{}), make(chan struct{})
	e.consume(t, e.Driver, broker.Subscription{Group: "group-" + unique(), Topics: topics, MaxInFlight: limit, MaxBuffered: 16}, func(ctx context.Context, d broker.Delivery) error {
		defer running.Add(-1)
		k := running.Add(1)
		for m := most.Load(); k > m && !most.CompareAndSwap(m, k); {
			m = most.Load()
		}
		if k == limit {
			select {
			case <-release:
			default:
				close(full)
			}
		}
		<-release
		return received.put(ctx, d)
	})
	for i := range n {
		e.send(t, broker.Message{Topic: topics[i%2], Body: fmt.Appendf(nil, "m%d", i)})
	}
	wait(t, "as many handlers as allowed", full)
	close(release)
	received.wait(t, n)
	if m := most.Load(); m != limit {
		t.Errorf("%d handlers at once, want %d", m, limit)
	}
}

func testSeveralTopics(t *testing.T, e *env) {
	one, two := e.topic(t, 1, broker.Normal), e.topic(t, 3, broker.Normal)
	received := e.subscribe(t, one, two)
	e.send(t, broker.Message{Topic: one, Body: []byte("one")})
	e.send(t, broker.Message{Topic: two, Body: []byte("two")})
	if d := received.waitBody(t, "one"); d.Topic != one {
		t.Errorf("topic %s, want %s", d.Topic, one)
	}
	if d := received.waitBody(t, "two"); d.Topic != two {
		t.Errorf("topic %s, want %s", d.Topic, two)
	}
}

// testGroupChanges starts and stops consumers of a group under load. Each message must be handled at least once.
func testGroupChanges(t *testing.T, e *env) {
	const rounds, each = 6, 50
	topic := e.topic(t, 4, broker.Normal)
	s := broker.Subscription{Group: "group-" + unique(), Topics: []string{topic}}
	received := newCollector()
	e.consume(t, e.Driver, s, received.put)
	other := e.Open(t)
	sent := 0
	for round := range rounds {
		var c broker.Consumer
		if round%2 == 0 {
			c = e.consume(t, other, s, received.put)
		}
		for range each {
			e.send(t, broker.Message{Topic: topic, Body: fmt.Appendf(nil, "m%d", sent)})
			sent++
		}
		if c != nil {
			stop(t, c)
		}
	}
	received.until(t, "each message", func(all []broker.Delivery) bool {
		seen := map[string]bool{}
		for _, d := range all {
			seen[string(d.Body)] = true
		}
		return len(seen) == sent
	})
}
