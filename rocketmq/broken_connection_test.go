package rocketmq_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// TestConsumerSurvivesABrokenConnection breaks the connection that a consumer pulls on, and no other. rocketmq-client-go would wait 30 s
// for the responses that are lost; the consumer is restarted before.
func TestConsumerSurvivesABrokenConnection(t *testing.T) {
	t.Parallel()
	mq := rocketmqtest.RunT(t)
	mq.CreateTopic("cut", 1)
	c := open(t, func(config *rocketmq.Config) { config.NameServers = []string{mq.Addr()} })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	heartbeats := make(chan struct{}, 100)
	mq.Control(func(r rocketmqtest.Request) rocketmqtest.Action {
		if r.Name == "HEART_BEAT" && bytes.Contains(r.Body, []byte(`"groupName":"cut"`)) {
			heartbeats <- struct{}{}
		}
		return rocketmqtest.Pass
	})
	came := make(chan string, 10)
	consumer, err := c.Subscribe(ctx, broker.Subscription{Group: "cut", Topics: []string{"cut"}}, func(_ context.Context, d broker.Delivery) error {
		came <- string(d.Body)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Stop(ctx)
	send := func(body string) {
		t.Helper()
		if _, err := c.Send(ctx, broker.Message{Topic: "cut", Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
		if got := <-came; got != body {
			t.Fatalf("got %s, want %s", got, body)
		}
	}
	// The client sends heartbeats when it starts, after a second, and then every 30 s, each on a new connection if the old one is broken.
	for quiet := false; !quiet; {
		select {
		case <-heartbeats:
		case <-time.After(1500 * time.Millisecond):
			quiet = true
		}
	}
	mq.Control(rocketmqtest.Once("PULL_MESSAGE", rocketmqtest.ResetAfter()))
	send("the pull after this one is cut")
	began := time.Now()
	send("after")
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("the consumer got no message for %v", took)
	}
}
