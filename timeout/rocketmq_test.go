// The client that package rocketmq drives has data races of its own when members of a group come and go.
//go:build !race

package timeout_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/testbroker"
	"github.com/rocketflow/rocketflow/timeout"
)

type alarm struct{ Key, topic string }

func (a alarm) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: a.topic, Type: "alarm", Subject: a.Key}
}

// On a broker: an armed timeout fires once and not early, a disarmed one doesn't fire, a moved one fires at the new time.
func TestOnRocketMQ(t *testing.T) {
	t.Parallel()
	if n := fireOn(t, testbroker.NameServers(t)); (n == 0) != testbroker.Is4() { // which has no timers
		t.Errorf("%d timers at the broker", n)
	}
}

// The same on brokers that have no timers, or whose timers are switched off.
func TestOnRocketMQWithoutTimers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]rocketmqtest.Config{"4.9": {Version: rocketmqtest.RocketMQ49}, "switched off": {NoTimers: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if n := fireOn(t, []string{rocketmqtest.RunT(t, c).Addr()}); n != 0 {
				t.Errorf("%d timers at the broker", n)
			}
		})
	}
}

// fireOn arms, disarms and moves timeouts on a broker, checks that they fire, and returns how many timers it was given.
func fireOn(t *testing.T, servers []string) (timers int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	client := testbroker.Open(t, rocketmq.Config{NameServers: servers, Service: "timeout-test"})
	topic := "timeout-test-" + uuid.NewString()[:8]
	if err := client.CreateTopics(ctx, broker.Topic{Name: topic, Queues: 2, Kind: broker.Delay}); err != nil {
		t.Fatal(err)
	}

	var mu sync.Mutex
	var lateness []time.Duration
	var handedOver atomic.Int32
	b := setup(t, func(c *timeout.Config, _ *fakeBroker) {
		c.Broker = client
		c.SweepGrace = 5 * time.Second
		c.Listener.HandedOver = func(i timeout.Info) {
			if i.DueAt.After(time.Now()) { // else its event was sent
				handedOver.Add(1)
			}
		}
		c.Listener.TooEarly = func(i timeout.Info) { t.Errorf("came early: %+v", i) }
		c.Listener.Fired = func(i timeout.Info) {
			mu.Lock()
			defer mu.Unlock()
			lateness = append(lateness, i.Late)
		}
	}).start(t)
	h := b.Fence(func(_ context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		tx.AfterCommit(func() { b.fired <- e })
		return nil
	})
	consumer, err := client.Subscribe(ctx, broker.Subscription{Group: topic, Topics: []string{topic}}, func(_ context.Context, d broker.Delivery) error {
		e, err := wire.EventOf(d)
		if err != nil {
			return err
		}
		return handle(b.pool, h, e)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := consumer.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()

	const timeouts = 60
	due := map[string]time.Time{} // of those that are to fire
	for n := range timeouts {
		key := uuid.NewString()
		at := time.Now().Add(2*time.Second + time.Duration(n)*13*time.Millisecond)
		err := within(ctx, b.pool, func(tx rocketflow.Tx) error {
			return b.Arm(ctx, tx, key, "alarm", at, alarm{key, topic})
		})
		if err != nil {
			t.Fatal(err)
		}
		switch n % 3 {
		case 0:
			due[key] = at
		case 1:
			err = within(ctx, b.pool, func(tx rocketflow.Tx) error {
				disarmed, err := b.Disarm(ctx, tx, key, "alarm")
				if err == nil && !disarmed {
					due[key] = at // it has fired on a slow machine
				}
				return err
			})
		case 2:
			due[key] = at
			err = within(ctx, b.pool, func(tx rocketflow.Tx) error {
				moved, err := b.Move(ctx, tx, key, "alarm", at.Add(1500*time.Millisecond))
				if moved {
					due[key] = at.Add(1500 * time.Millisecond)
				}
				return err
			})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for n := len(due); n > 0; n-- {
		e := b.waitFired(t)
		at, ok := due[e.Subject]
		if !ok {
			t.Fatalf("%s fired twice, or after it was disarmed", e.Subject)
		}
		if now := time.Now(); now.Before(at) {
			t.Errorf("fired %v early", at.Sub(now))
		}
		delete(due, e.Subject)
	}
	if n := b.count(t, "true"); n != 0 {
		t.Errorf("%d rows left", n)
	}
	mu.Lock()
	defer mu.Unlock()
	var worst time.Duration
	for _, l := range lateness {
		if worst = max(worst, l); l < 0 {
			t.Errorf("reported as %v late", l)
		}
	}
	t.Logf("%d fired, the latest %v late, %d timers at the broker", len(lateness), worst, handedOver.Load())
	return int(handedOver.Load())
}
