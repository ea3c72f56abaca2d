package rocketmq_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// TestSubscribeDiscarded: a half message that no checker decides is delivered with its own topic. Before the first one there is no topic to
// subscribe to.
func TestSubscribeDiscarded(t *testing.T) {
	t.Parallel()
	mq := rocketmqtest.RunT(t, rocketmqtest.Config{TransactionTimeout: 200 * time.Millisecond, CheckInterval: 200 * time.Millisecond, CheckMax: 2})
	ctx := deadline(t, time.Minute)
	c := open(t, func(c *rocketmq.Config) { c.NameServers, c.Namespace = []string{mq.Addr()}, "space" })
	got := make(chan broker.Delivery, 10)
	subscribe := func() error {
		_, err := c.SubscribeDiscarded(ctx, "readers", func(_ context.Context, d broker.Delivery) error { got <- d; return nil })
		return err
	}
	if err := subscribe(); !errors.Is(err, broker.ErrTopicNotFound) {
		t.Fatalf("before the first: got %v", err)
	}
	createTopic(t, c, broker.Topic{Name: "orders"})
	tr, err := c.OpenTransactionProducer(ctx, "producers", func(context.Context, broker.Check) (broker.Decision, func(error)) { return broker.Unknown, nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Prepare(ctx, broker.Message{Topic: "orders", Tag: "t", Body: []byte("lost")}); err != nil {
		t.Fatal(err)
	}
	poll.Succeeds(t, 20*time.Second, subscribe)
	select {
	case d := <-got:
		if d.Topic != "orders" || string(d.Body) != "lost" || d.Tag != "t" || d.Born.IsZero() {
			t.Errorf("got %+v", d)
		}
	case <-ctx.Done():
		t.Fatal("nothing came")
	}
}
