package brokertest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
)

func testBeginOldest(t *testing.T, b *bench) {
	testBegin(t, b, broker.BeginOldest(), broker.BeginNewest(), true)
}

func testBeginNewest(t *testing.T, b *bench) {
	testBegin(t, b, broker.BeginNewest(), broker.BeginOldest(), false)
}

// testBegin starts a new group where old messages are, and once more with another Begin when it is no longer new.
func testBegin(t *testing.T, b *bench, begin, later broker.Begin, old bool) {
	topic := b.topic(t, 2, broker.Normal)
	for range 4 {
		b.send(t, broker.Message{Topic: topic, Body: []byte("old")})
	}
	b.subscribe(t, topic).wait(t, 4) // stored and within reach of consumers
	in := newInbox()
	s := broker.Subscription{Group: "group-" + unique(), Topics: []string{topic}, Begin: begin}
	c := b.consume(t, b.Driver, s, in.put)
	for range 4 {
		b.send(t, broker.Message{Topic: topic, Body: []byte("new")})
	}
	in.until(t, "new messages", func([]broker.Delivery) bool { return in.count("new") >= 4 })
	want := 0
	if old {
		want = 4
		in.until(t, "old messages", func([]broker.Delivery) bool { return in.count("old") >= want })
	}
	stop(t, c)
	for range 4 {
		b.send(t, broker.Message{Topic: topic, Body: []byte("while away")})
	}
	s.Begin = later
	b.consume(t, b.Driver, s, in.put) // the group is no longer new
	in.until(t, "what was sent meanwhile", func([]broker.Delivery) bool { return in.count("while away") >= 4 })
	if in.count("old") != want || in.count("new") != 4 {
		t.Errorf("got %d old messages and %d new ones, want %d and 4", in.count("old"), in.count("new"), want)
	}
}

func testBeginAt(t *testing.T, b *bench) {
	topic := b.topic(t, 2, broker.Normal)
	in := b.subscribe(t, topic)
	// Messages of at least four instants, of which the third is the beginning.
	var instants []time.Time
	for n := 1; len(instants) < 4; n++ {
		b.send(t, broker.Message{Topic: topic, Body: fmt.Appendf(nil, "m%d", n)})
		all := in.wait(t, n)
		instants = instants[:0]
		for _, d := range all {
			instants = append(instants, d.Stored)
		}
		slices.SortFunc(instants, time.Time.Compare)
		instants = slices.CompactFunc(instants, time.Time.Equal)
	}
	old := in.wait(t, 1)
	for _, c := range []struct {
		name  string
		begin time.Time
	}{
		{"between", instants[2]},
		{"before the oldest", instants[0].Add(-time.Hour)},
		{"in the future", time.Now().Add(time.Hour)},
	} {
		got := newInbox()
		b.consume(t, b.Driver, broker.Subscription{Group: "group-" + unique(), Topics: []string{topic}, Begin: broker.BeginAt(c.begin)}, got.put)
		last := "last, " + c.name
		// One for each queue: what is older in a queue comes before it.
		for range 2 {
			b.send(t, broker.Message{Topic: topic, Body: []byte(last)})
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
				t.Errorf("%s: message stored %v after the beginning came %d times, want %d", c.name, d.Stored.Sub(c.begin), n, want)
			}
		}
	}
}
