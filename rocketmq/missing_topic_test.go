package rocketmq_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// TestMissingTopicErrorSaysHowToCreateIt: whatever finds that a topic doesn't exist, the error names the topic and what creates it. Here the
// topic is missing from the start, and then deleted from the broker while the client still knows its route.
func TestMissingTopicErrorSaysHowToCreateIt(t *testing.T) {
	t.Parallel()
	mq := rocketmqtest.RunT(t)
	mq.CreateTopic("deleted", 1)
	c := open(t, func(config *rocketmq.Config) { config.NameServers = []string{mq.Addr()} })
	ctx := deadline(t, time.Minute)
	check := func(what, topic string, err error) {
		t.Helper()
		if !errors.Is(err, broker.ErrTopicNotFound) {
			t.Fatalf("%s: got %v", what, err)
		}
		for _, part := range []string{topic, "`mqadmin updateTopic`", "CreateTopics"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: the error doesn't contain %s: %v", what, part, err)
			}
		}
	}
	_, err := c.Send(ctx, broker.Message{Topic: "missing", Body: []byte("x")})
	check("send", "missing", err)
	check("send group", "missing", errors.Join(c.SendGroup(ctx, []broker.Message{{Topic: "missing", Body: []byte("x")}})...))
	check("verify", "missing", c.VerifyTopics(ctx, "missing"))
	_, err = c.Subscribe(ctx, broker.Subscription{Group: "group", Topics: []string{"missing"}}, func(context.Context, broker.Delivery) error { return nil })
	check("subscribe", "missing", err)

	if _, err := c.Send(ctx, broker.Message{Topic: "deleted", Body: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	mq.Control(func(r rocketmqtest.Request) rocketmqtest.Action {
		if strings.HasPrefix(r.Name, "SEND_MESSAGE") {
			return rocketmqtest.Respond(17, "topic[deleted] not exist")
		}
		return rocketmqtest.Pass
	})
	_, err = c.Send(ctx, broker.Message{Topic: "deleted", Body: []byte("x")})
	check("send to a deleted topic", "deleted", err)
}

// TestAForgottenTopicIsCreatedAgain: a topic that CreateTopics was to create and that a broker forgets, as the new master after a switch does
// whose slave had not copied it, is created again with as many queues by the next send. Other topics are not.
func TestAForgottenTopicIsCreatedAgain(t *testing.T) {
	t.Parallel()
	mq := rocketmqtest.RunT(t)
	c := open(t, func(c *rocketmq.Config) { c.NameServers = []string{mq.Addr()} })
	ctx := deadline(t, time.Minute)
	mq.CreateTopic("others", 2)
	createTopic(t, c, broker.Topic{Name: "orders", Queues: 3})
	forget := func() {
		t.Helper()
		conn := testbroker.DialBroker(t, mq.Addr())
		for _, topic := range []string{"orders", "others"} {
			if _, err := c.Send(ctx, broker.Message{Topic: topic, Body: []byte("before")}); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Call(ctx, &remoting.Command{Code: remoting.DeleteTopicInBroker, Ext: map[string]string{"topic": topic}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	forget()
	_, err := c.Send(ctx, broker.Message{Topic: "orders", Body: []byte("first")})
	if !errors.Is(err, broker.ErrUnavailable) || errors.Is(err, broker.ErrRejected) {
		t.Errorf("the first send: %v, want ErrUnavailable", err)
	}
	queues := map[int]bool{}
	for range 3 {
		r, err := c.Send(ctx, broker.Message{Topic: "orders", Body: []byte("after")})
		if err != nil {
			t.Fatal(err)
		}
		queues[r.Queue] = true
	}
	if len(queues) != 3 {
		t.Errorf("messages went to queues %v, want three", queues)
	}
	if _, err := c.Send(ctx, broker.Message{Topic: "others", Body: []byte("x")}); !errors.Is(err, broker.ErrTopicNotFound) {
		t.Errorf("a topic that others create: %v, want ErrTopicNotFound", err)
	}
}
