package brokertest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
)

func testSchedule(t *testing.T, b *bench) {
	const n = 20
	topic := b.topic(t, 2, broker.Delay)
	type arrival struct {
		body string
		at   time.Time
	}
	arrivals := make(chan arrival, 2*n)
	b.consume(t, b.Driver, broker.Subscription{Group: "group-" + unique(), Topics: []string{topic}}, func(_ context.Context, d broker.Delivery) error {
		arrivals <- arrival{string(d.Body), time.Now()}
		return nil
	})
	due := map[string]time.Time{}
	for i := range n {
		body := fmt.Sprintf("t%d", i)
		at := time.Now().Add(500*time.Millisecond + time.Duration(i)*137*time.Millisecond + 345*time.Microsecond)
		timer, err := b.Schedule(b.ctx, broker.Message{Topic: topic, ShardingKey: "k", Body: []byte(body)}, at)
		if err != nil {
			t.Fatal(err)
		}
		if timer.MessageID == "" || timer.Broker == "" || timer.Topic != topic || timer.Due.Before(at) {
			t.Fatalf("timer %+v for %v", timer, at)
		}
		due[body] = at
	}
	for range n {
		select {
		case a := <-arrivals:
			if early := due[a.body].Sub(a.at); early > 0 {
				t.Errorf("%s came %v early", a.body, early)
			}
		case <-time.After(patience):
			t.Fatalf("timers missing after %v", patience)
		}
	}
}

func testSchedulePast(t *testing.T, b *bench) {
	topic := b.topic(t, 1, broker.Delay)
	in := b.subscribe(t, topic)
	if _, err := b.Schedule(b.ctx, broker.Message{Topic: topic, Body: []byte("past")}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	in.waitBody(t, "past")
}

func testBeyondHorizon(t *testing.T, b *bench) {
	topic := b.topic(t, 1, broker.Delay)
	m := broker.Message{Topic: topic, Body: []byte("far")}
	if _, err := b.Schedule(b.ctx, m, time.Now().Add(b.Horizon()+time.Minute)); !errors.Is(err, broker.ErrBeyondHorizon) || !errors.Is(err, broker.ErrRejected) {
		t.Errorf("got %v, want ErrBeyondHorizon", err)
	}
	timer, err := b.Schedule(b.ctx, m, time.Now().Add(b.Horizon()-time.Minute))
	if err != nil {
		t.Fatalf("within the horizon: %v", err)
	}
	if err := b.Cancel(b.ctx, timer); err != nil {
		t.Error(err)
	}
}

func testCancel(t *testing.T, b *bench) {
	topic := b.topic(t, 4, broker.Delay)
	in := b.subscribe(t, topic)
	at := time.Now().Add(3 * time.Second)
	var timers []broker.Timer
	for i := range 4 {
		timer, err := b.Schedule(b.ctx, broker.Message{Topic: topic, Body: fmt.Appendf(nil, "t%d", i)}, at)
		if err != nil {
			t.Fatal(err)
		}
		timers = append(timers, timer)
	}
	if err := b.Cancel(b.ctx, timers[1]); err != nil {
		t.Fatal(err)
	}
	if err := b.Open(t).Cancel(b.ctx, timers[2]); err != nil { // by another process
		t.Fatal(err)
	}
	// What is due later comes later: by then the cancelled ones would have come.
	if _, err := b.Schedule(b.ctx, broker.Message{Topic: topic, Body: []byte("marker")}, at.Add(1500*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	in.waitBody(t, "marker")
	in.waitBody(t, "t0")
	in.waitBody(t, "t3")
	if in.count("t1") != 0 || in.count("t2") != 0 {
		t.Error("a cancelled timer fired")
	}
	if all := in.wait(t, 3); len(all) != 3 {
		t.Errorf("got %s: the cancelling messages must not be delivered", bodies(all))
	}
}
