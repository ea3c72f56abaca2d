package brokertest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
)

// hasTimers reports whether the broker has timers. A driver for one without must refuse to schedule and to cancel.
func hasTimers(t *testing.T, e *env) bool {
	t.Helper()
	if e.Horizon() > 0 {
		return true
	}
	topic := e.topic(t, 1, broker.Normal)
	received := e.subscribe(t, topic)
	at := time.Now().Add(time.Minute)
	if _, err := e.Schedule(e.ctx, broker.Message{Topic: topic, Body: []byte("t")}, at); !errors.Is(err, broker.ErrNoTimers) || !errors.Is(err, broker.ErrRejected) {
		t.Errorf("schedule: got %v, want ErrNoTimers", err)
	}
	receipt, err := e.Send(e.ctx, broker.Message{Topic: topic, Body: []byte("m")})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Cancel(e.ctx, broker.Timer{MessageID: receipt.MessageID, Topic: topic, Broker: receipt.Broker, Due: at}); !errors.Is(err, broker.ErrNoTimers) {
		t.Errorf("cancel: got %v, want ErrNoTimers", err)
	}
	received.waitBody(t, "m")
	if all := received.wait(t, 1); len(all) != 1 {
		t.Errorf("got %s: nothing that is refused must be delivered", bodies(all))
	}
	return false
}

func testScheduleNeverEarly(t *testing.T, e *env) {
	if !hasTimers(t, e) {
		return
	}
	const n = 20
	topic := e.topic(t, 2, broker.Delay)
	type arrival struct {
		body string
		at   time.Time
	}
	arrivals := make(chan arrival, 2*n)
	e.consume(t, e.Driver, broker.Subscription{Group: "group-" + unique(), Topics: []string{topic}}, func(_ context.Context, d broker.Delivery) error {
		arrivals <- arrival{string(d.Body), time.Now()}
		return nil
	})
	due := map[string]time.Time{}
	for i := range n {
		body := fmt.Sprintf("t%d", i)
		at := time.Now().Add(500*time.Millisecond + time.Duration(i)*137*time.Millisecond + 345*time.Microsecond)
		timer, err := e.Schedule(e.ctx, broker.Message{Topic: topic, ShardingKey: "k", Body: []byte(body)}, at)
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
		case <-time.After(waitLimit):
			t.Fatalf("timers missing after %v", waitLimit)
		}
	}
}

func testSchedulePastInstant(t *testing.T, e *env) {
	topic := e.topic(t, 1, broker.Delay)
	received := e.subscribe(t, topic)
	if _, err := e.Schedule(e.ctx, broker.Message{Topic: topic, Body: []byte("past")}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	received.waitBody(t, "past")
}

func testScheduleBeyondHorizon(t *testing.T, e *env) {
	if !hasTimers(t, e) {
		return
	}
	topic := e.topic(t, 1, broker.Delay)
	m := broker.Message{Topic: topic, Body: []byte("far")}
	if _, err := e.Schedule(e.ctx, m, time.Now().Add(e.Horizon()+time.Minute)); !errors.Is(err, broker.ErrBeyondHorizon) || !errors.Is(err, broker.ErrRejected) {
		t.Errorf("got %v, want ErrBeyondHorizon", err)
	}
	timer, err := e.Schedule(e.ctx, m, time.Now().Add(e.Horizon()-time.Minute))
	if err != nil {
		t.Fatalf("within the horizon: %v", err)
	}
	if err := e.Cancel(e.ctx, timer); err != nil {
		t.Error(err)
	}
}

func testScheduleCancel(t *testing.T, e *env) {
	if !hasTimers(t, e) {
		return
	}
	topic := e.topic(t, 4, broker.Delay)
	received := e.subscribe(t, topic)
	at := time.Now().Add(3 * time.Second)
	var timers []broker.Timer
	for i := range 4 {
		timer, err := e.Schedule(e.ctx, broker.Message{Topic: topic, Body: fmt.Appendf(nil, "t%d", i)}, at)
		if err != nil {
			t.Fatal(err)
		}
		timers = append(timers, timer)
	}
	if err := e.Cancel(e.ctx, timers[1]); err != nil {
		t.Fatal(err)
	}
	if err := e.Open(t).Cancel(e.ctx, timers[2]); err != nil { // from another process
		t.Fatal(err)
	}
	// When this later message has come, the cancelled ones would have come, too.
	if _, err := e.Schedule(e.ctx, broker.Message{Topic: topic, Body: []byte("marker")}, at.Add(1500*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	received.waitBody(t, "marker")
	received.waitBody(t, "t0")
	received.waitBody(t, "t3")
	if received.count("t1") != 0 || received.count("t2") != 0 {
		t.Error("a cancelled timer fired")
	}
	if all := received.wait(t, 3); len(all) != 3 {
		t.Errorf("got %s: the cancelling messages must not be delivered", bodies(all))
	}
}
