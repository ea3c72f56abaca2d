package rocketmq_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/poll"
)

// TestVanishedBrokerIsNoticed: a broker's host vanishes, and nothing ends the connections to it. The client notices within 13 s, and when it
// sends much earlier. Sends fail at once then, and when the broker is back everything goes on by new connections.
func TestVanishedBrokerIsNoticed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		sends bool
		limit time.Duration
	}{
		{"while it only consumes", false, 13 * time.Second},
		{"while it sends", true, 5 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			vanish(t, c.sends, c.limit)
		})
	}
}

func vanish(t *testing.T, sends bool, limit time.Duration) {
	t.Helper()
	mq := rocketmqtest.RunT(t)
	mq.CreateTopic("topic", 1)
	down := make(chan time.Time, 10)
	c := own(t, mq.Addr(), func(c *rocketmq.Config) {
		c.SendTimeout = time.Second
		c.Listener = &rocketmq.Listener{BrokerDown: func(rocketmq.BrokerInfo) { down <- time.Now() }}
	})
	came, k := collect(t, c, "group", "topic")
	send := func(body string) error {
		_, err := c.Send(t.Context(), broker.Message{Topic: "topic", Body: []byte(body)})
		return err
	}
	if err := send("before"); err != nil {
		t.Fatal(err)
	}
	next(t, came)
	heal := mq.Partition(func(client string) bool { return client != "" }, rocketmqtest.Dead)
	began := time.Now()
	if sends {
		if err := send("lost"); !errors.Is(err, broker.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	}
	var noticed time.Duration
	select {
	case at := <-down:
		noticed = at.Sub(began)
	case <-time.After(time.Minute):
		t.Fatal("the loss isn't noticed")
	}
	t.Logf("noticed after %v", noticed)
	const slack = 2 * time.Second // of a busy machine
	if noticed > limit+slack {
		t.Errorf("noticed after %v, want %v", noticed, limit)
	}
	at := time.Now()
	if err := send("refused"); !errors.Is(err, broker.ErrUnavailable) || time.Since(at) > 500*time.Millisecond {
		t.Errorf("after %v: got %v", time.Since(at), err)
	}
	poll.Succeeds(t, limit+slack-time.Since(began)+time.Second, func() error {
		if k.Err() == nil {
			return errors.New("the consumer reports nothing")
		}
		return nil
	})
	heal()
	poll.Succeeds(t, 10*time.Second, func() error { return send("after") })
	for string(next(t, came).Body) != "after" {
	}
	poll.Succeeds(t, 10*time.Second, func() error {
		if err := errors.Join(k.Err(), c.Ping(t.Context())); err != nil {
			return fmt.Errorf("when the broker is back: %w", err)
		}
		return nil
	})
}
