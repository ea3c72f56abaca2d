package rocketmq_test

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// TestResetReachesTheMembers: a broker tells a reset of the group's offset only to the next pull in the name of the group. What the client
// asks for otherwise doesn't take it away.
func TestResetReachesTheMembers(t *testing.T) {
	t.Parallel()
	for _, transport := range []rocketmq.Transport{rocketmq.ClientGo, rocketmq.Own} {
		t.Run(transport.String(), func(t *testing.T) {
			t.Parallel()
			if transport == rocketmq.ClientGo {
				usesClient(t)
			}
			mq := testbroker.Start(t)
			ctx := deadline(t, 2*time.Minute)
			c := open(t, at(mq), func(c *rocketmq.Config) { c.Transport = transport })
			createTopic(t, c, broker.Topic{Name: "topic", Queues: 1})
			came, k := collect(t, c, "group", "topic")
			send := func(body string) {
				t.Helper()
				if _, err := c.Send(ctx, broker.Message{Topic: "topic", Body: []byte(body)}); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 3 {
				send(strconv.Itoa(i))
				next(t, came)
			}
			reset := &remoting.Command{Code: remoting.ResetGroup, Ext: map[string]string{"topic": "topic", "group": "group", "timestamp": "0", "isForce": "true"}}
			conn := testbroker.DialBroker(t, mq.NameServer())
			poll.Succeeds(t, 30*time.Second, func() error { // RocketMQ 4 resets what was committed
				_, err := conn.Call(ctx, reset)
				return err
			})
			positions, err := c.QueuePositions(ctx, "group", "topic")
			if testbroker.Is4() {
				// It tells the members, which commit the new offset.
			} else if err != nil || len(positions) != 1 || positions[0].Committed != 0 || positions[0].Unread.IsZero() {
				t.Errorf("positions after the reset: %+v, %v", positions, err)
			}
			for _, starting := range []bool{true, false} {
				if err := rocketmq.CheckGrants(ctx, k, starting); err != nil {
					t.Error(err)
				}
			}
			send("3") // a broker looks for a reset when the held pull ends
			again := map[string]bool{}
			for len(again) < 4 {
				again[string(next(t, came).Body)] = true
			}
		})
	}
}

// TestGroupStepsBackWithItsQueue: a broker has lost all messages of a queue, and the group's offset is beyond them. The group's offset
// becomes 0, also at the broker: else the group would pass over messages that take the places of the lost ones, when its member has died.
func TestGroupStepsBackWithItsQueue(t *testing.T) {
	t.Parallel()
	mq := rocketmqtest.RunT(t, rocketmqtest.Config{FlushInterval: time.Hour, OffsetFlushInterval: 100 * time.Millisecond})
	ctx := deadline(t, time.Minute)
	c := open(t, func(c *rocketmq.Config) { c.NameServers, c.Transport = []string{mq.Addr()}, rocketmq.Own })
	createTopic(t, c, broker.Topic{Name: "topic", Queues: 1})
	came, _ := collect(t, c, "group", "topic")
	committed := func(want int64) {
		t.Helper()
		poll.Succeeds(t, 30*time.Second, func() error {
			positions, err := c.QueuePositions(ctx, "group", "topic")
			if err == nil && positions[0].Committed != want {
				err = fmt.Errorf("committed %d, want %d", positions[0].Committed, want)
			}
			return err
		})
	}
	if _, err := c.Send(ctx, broker.Message{Topic: "topic", Body: []byte("lost")}); err != nil {
		t.Fatal(err)
	}
	next(t, came)
	committed(1)
	mq.Restart(rocketmqtest.LoseUnflushed)
	committed(0)
}
