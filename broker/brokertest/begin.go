package brokertest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
)

func testBeginOldest(t *testing.T, e *env) {
	testBegin(t, e, broker.BeginOldest(), broker.BeginNewest(), true)
}

func testBeginNewest(t *testing.T, e *env) {
	testBegin(t, e, broker.BeginNewest(), broker.BeginOldest(), false)
}

// testBegin starts a new group on a topic with old messages, and starts it again with another Begin, which must make no difference.
func testBegin(t *testing.T, e *env, begin, later broker.Begin, old bool) {
	topic := e.topic(t, 2, broker.Normal)
	if e.BeginsOldest {
		for _, b := range []broker.Begin{broker.BeginNewest(), broker.BeginAt(time.Now())} {
			s := broker.Subscription{Group: "group-" + unique(), Topics: []string{topic}, Begin: b}
			if _, err := e.Subscribe(e.ctx, s, newCollector().put); !errors.Is(err, broker.ErrBeginsOldest) {
				t.Errorf("begin at %v: got %v, want ErrBeginsOldest", b, err)
			}
		}
		if begin.Oldest() {
			later = begin
		} else {
			return
		}
	}
	for range 4 {
		e.send(t, broker.Message{Topic: topic, Body: []byte("old")})
	}
	e.subscribe(t, topic).wait(t, 4) // stored, and visible to consumers
	received := newCollector()
	s := broker.Subscription{Group: "group-" + unique(), Topics: []string{topic}, Begin: begin}
	c := e.consume(t, e.Driver, s, received.put)
	for range 4 {
		e.send(t, broker.Message{Topic: topic, Body: []byte("new")})
	}
	received.until(t, "new messages", func([]broker.Delivery) bool { return received.count("new") >= 4 })
	want := 0
	if old {
		want = 4
		received.until(t, "old messages", func([]broker.Delivery) bool { return received.count("old") >= want })
	}
	stop(t, c)
	for range 4 {
		e.send(t, broker.Message{Topic: topic, Body: []byte("while away")})
	}
	s.Begin = later
	e.consume(t, e.Driver, s, received.put) // the group is no longer new
	received.until(t, "what was sent meanwhile", func([]broker.Delivery) bool { return received.count("while away") >= 4 })
	if received.count("old") != want || received.count("new") != 4 {
		t.Errorf("got %d old messages and %d new ones, want %d and 4", received.count("old"), received.count("new"), want)
	}
}

func testBeginAt(t *testing.T, e *env) {
	if e.BeginsOldest {
		return // testBegin has it refused
	}
	topic := e.topic(t, 2, broker.Normal)
	received := e.subscribe(t, topic)
	// Send until the messages have at least four instants, of which the third is the Begin.
	var instants []time.Time
	for n := 1; len(instants) < 4; n++ {
		e.send(t, broker.Message{Topic: topic, Body: fmt.Appendf(nil, "m%d", n)})
		all := received.wait(t, n)
		instants = instants[:0]
		for _, d := range all {
			instants = append(instants, d.Stored)
		}
		slices.SortFunc(instants, time.Time.Compare)
		instants = slices.CompactFunc(instants, time.Time.Equal)
	}
	old := received.wait(t, 1)
	for _, c := range []struct {
		name  string
		begin time.Time
	}{
		{"between", instants[2]},
		{"before the oldest", instants[0].Add(-time.Hour)},
		{"in the future", time.Now().Add(time.Hour)},
	} {
		got := newCollector()
		e.consume(t, e.Driver, broker.Subscription{Group: "group-" + unique(), Topics: []string{topic}, Begin: broker.BeginAt(c.begin)}, got.put)
		last := "last, " + c.name
		// One for each queue: older messages of a queue are delivered before it.
		for range 2 {
			e.send(t, broker.Message{Topic: topic, Body: []byte(last)})
		}
		got.until(t, last, func([]broker.Delivery) bool { return got.count(last) == 2 })
		for _, d := range old {
			want := 0
			if !d.Stored.Before(c.begin) {
				want = 1
			}
			body := string(d.Body)
			if want > 0 {
				got.waitBody(t, body)
			}
			if n := got.count(body); n != want {
				t.Errorf("%s: message stored %v after the Begin came %d times, want %d", c.name, d.Stored.Sub(c.begin), n, want)
			}
		}
	}
}
