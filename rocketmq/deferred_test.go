package rocketmq_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

func await(c *rocketmq.Config) { c.AwaitBroker = true }

// TestAwaitBroker: a client that is opened while the broker is down reports that, and completes all calls when the broker is up.
func TestAwaitBroker(t *testing.T) {
	mq := testbroker.Start(t)
	ctx := deadline(t, 3*time.Minute)
	topic := unique("await")
	createTopic(t, open(t, at(mq)), broker.Topic{Name: topic, Queues: 2})
	mq.Kill()

	var c *rocketmq.Client
	poll.Succeeds(t, 30*time.Second, func() error { // a name server may know its broker for a while longer
		_, err := rocketmq.Open(ctx, rocketmq.Config{NameServers: []string{mq.NameServer()}, Service: "test"})
		if !errors.Is(err, broker.ErrUnavailable) {
			return errors.New("opened")
		}
		return nil
	})
	c = open(t, at(mq), await)
	got := make(chan string, 100)
	consumer, err := c.Subscribe(ctx, broker.Subscription{Group: unique("group"), Topics: []string{topic}}, func(_ context.Context, d broker.Delivery) error {
		got <- string(d.Body)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	tr, err := c.OpenTransactionProducer(ctx, unique("producers"), func(context.Context, broker.Check) (broker.Decision, func(error)) { return broker.Commit, nil })
	if err != nil {
		t.Fatal(err)
	}
	made := unique("made")
	if err := errors.Join(c.VerifyTopics(ctx, topic), c.CreateTopics(ctx, broker.Topic{Name: made}), c.VerifyTopics(ctx, "missing")); err != nil {
		t.Fatal(err)
	}
	_, err = c.Send(ctx, broker.Message{Topic: topic, Body: []byte("x")})
	if !errors.Is(err, broker.ErrUnavailable) || errors.Is(err, broker.ErrRejected) {
		t.Errorf("send: got %v", err)
	}
	for what, err := range map[string]error{"ping": c.Ping(ctx), "consumer": consumer.Err()} {
		if !errors.Is(err, broker.ErrUnavailable) {
			t.Errorf("%s says %v while the broker is away", what, err)
		}
	}

	if err := mq.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	poll.Succeeds(t, 30*time.Second, func() error {
		_, err := tr.Prepare(ctx, broker.Message{Topic: topic, Body: []byte("checked")})
		return err
	})
	for want := 2; want > 0; want-- {
		select {
		case <-got:
		case <-time.After(30 * time.Second):
			t.Fatalf("a message is missing")
		}
		if want == 2 {
			t.Logf("a half message was prepared, checked, delivered %v after the broker came", time.Since(back))
			if _, err := c.Send(ctx, broker.Message{Topic: topic, Body: []byte("sent")}); err != nil {
				t.Fatal(err)
			}
		}
	}
	poll.Succeeds(t, 10*time.Second, consumer.Err)
	poll.Succeeds(t, 10*time.Second, func() error { return c.VerifyTopics(ctx, made) })
	poll.Succeeds(t, 10*time.Second, func() error { // a deferred call that is refused stays visible
		err := c.Ping(ctx)
		if !errors.Is(err, broker.ErrTopicNotFound) || errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), "missing") {
			return errors.Join(errors.New("ping doesn't name the missing topic alone"), err)
		}
		return nil
	})
	if err := c.VerifyTopics(ctx, "missing"); !errors.Is(err, broker.ErrTopicNotFound) {
		t.Errorf("while a broker can be reached a missing topic is an error; got %v", err)
	}
	if err := c.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := c.VerifyTopics(ctx, topic); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("a call of a closed client is not deferred; got %v", err)
	}
}

// TestAwaitBrokerNamesTheAddress: while no broker can be reached Ping names the address.
func TestAwaitBrokerNamesTheAddress(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"127.0.0.1:1", "no-such-host.invalid:1"} {
		c := open(t, func(c *rocketmq.Config) { c.NameServers = []string{address} }, await)
		if err := c.Ping(t.Context()); !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), strings.Split(address, ":")[0]) {
			t.Errorf("ping says %v, want the address", err)
		}
	}
}
