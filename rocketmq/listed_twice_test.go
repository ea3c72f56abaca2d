package rocketmq_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// TestConsumerListedTwiceReadsAllQueues: RocketMQ 5.3.3 lists a consumer for two minutes for both its connections if the first broke while a
// heartbeat was in flight. The consumer must read all of its queues all the same.
func TestConsumerListedTwiceReadsAllQueues(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, time.Minute)
	c := open(t)
	topic := "twice-" + uuid.NewString()
	if err := c.CreateTopics(ctx, broker.Topic{Name: topic, Queues: 4}); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	came := map[string]bool{}
	consumer, err := c.Subscribe(ctx, broker.Subscription{Group: topic, Topics: []string{topic}}, func(_ context.Context, d broker.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		came[string(d.Body)] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Stop(ctx)
	nameServer := testbroker.NameServers(t)[0]
	ids, err := testbroker.Members(ctx, nameServer, topic)
	if err != nil || len(ids) != 1 {
		t.Fatalf("listed: %v, %v; want one", ids, err)
	}
	second := testbroker.DialBroker(t, nameServer)
	heartbeat := fmt.Sprintf(`{"clientID":%q,"producerDataSet":[],"consumerDataSet":[{"groupName":%q,"consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING",
		"consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","unitMode":false,
		"subscriptionDataSet":[{"topic":%q,"subString":"*","tagsSet":[],"codeSet":[],"subVersion":1,"expressionType":"TAG","classFilterMode":false}]}]}`, ids[0], topic, topic)
	if _, err := second.Call(ctx, &remoting.Command{Code: remoting.Heartbeat, Body: []byte(heartbeat)}); err != nil {
		t.Fatal(err)
	}
	if ids, err := testbroker.Members(ctx, nameServer, topic); err != nil || len(ids) != 2 {
		t.Errorf("listed: %v, %v; want it twice", ids, err)
	}
	// The broker notifies the consumer of the change, and it allocates the queues again while messages come to each of them.
	const n = 250
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for i := range n {
		<-pace.C
		if _, err := c.Send(ctx, broker.Message{Topic: topic, Body: []byte(fmt.Sprint(i))}); err != nil {
			t.Fatal(err)
		}
	}
	poll.Succeeds(t, 20*time.Second, func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(came) < n {
			return fmt.Errorf("%d of %d messages came", len(came), n)
		}
		return nil
	})
}
