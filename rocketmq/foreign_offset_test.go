package rocketmq_test

import (
	"context"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// RocketMQ 4 keeps an offset for whatever queue a client names, and shows only by the offsets of all groups whether a group is new. What one
// client sets must not keep the groups of others from starting.
func TestOffsetsOfOthersDontKeepAGroupFromStarting(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, time.Minute)
	c := open(t)
	topic := unique("topic")
	createTopic(t, c, broker.Topic{Name: topic, Queues: 2})
	conn := testbroker.DialBroker(t, testbroker.NameServers(t)[0])
	for _, queue := range []string{"-1", "-2147483648", "2147483647"} {
		// A newer broker may refuse it, which is as good.
		_, err := conn.Call(ctx, &remoting.Command{Code: remoting.UpdateConsumerOffset, Ext: map[string]string{
			"consumerGroup": unique("other"), "topic": topic, "queueId": queue, "commitOffset": "7",
		}})
		t.Logf("offset of queue %s: %v", queue, err)
	}
	k, err := c.Subscribe(ctx, broker.Subscription{Group: unique("group"), Topics: []string{topic}, Begin: broker.BeginNewest()},
		func(context.Context, broker.Delivery) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Stop(ctx); err != nil {
		t.Fatal(err)
	}
}
