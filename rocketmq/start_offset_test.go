package rocketmq_test

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// TestQueuesAddedLaterAreReadFromTheirOldestMessage: also by a group that began at the newest message.
func TestQueuesAddedLaterAreReadFromTheirOldestMessage(t *testing.T) {
	t.Parallel()
	mq := testbroker.Start(t)
	ctx := deadline(t, 3*time.Minute)
	c := open(t, at(mq))
	topic := unique("later")
	createTopic(t, c, broker.Topic{Name: topic, Queues: 2})
	send := func(c *rocketmq.Client, body string) {
		t.Helper()
		if _, err := c.Send(ctx, broker.Message{Topic: topic, Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		send(c, "old")
	}
	got := make(chan broker.Delivery, 100)
	s := broker.Subscription{Group: unique("group"), Topics: []string{topic}, Begin: broker.BeginNewest()}
	subscribe := func(c *rocketmq.Client) broker.Consumer {
		t.Helper()
		k, err := c.Subscribe(ctx, s, func(_ context.Context, d broker.Delivery) error { got <- d; return nil })
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	if err := subscribe(c).Stop(ctx); err != nil {
		t.Fatal(err)
	}

	conn := testbroker.DialBroker(t, mq.NameServer())
	if _, err := conn.Call(ctx, &remoting.Command{Code: remoting.UpdateTopic, Ext: map[string]string{
		"topic": topic, "defaultTopic": remoting.DefaultTopic, "readQueueNums": "4", "writeQueueNums": "4", "perm": strconv.Itoa(remoting.PermRead | remoting.PermWrite),
		"topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
	}}); err != nil {
		t.Fatal(err)
	}
	fresh := open(t, at(mq))
	queues := map[int]bool{}
	poll.Succeeds(t, time.Minute, func() error { // until a message lies in each queue
		r, err := fresh.Send(ctx, broker.Message{Topic: topic, Body: []byte("new")})
		if err != nil {
			return err
		}
		if queues[r.Queue] = true; len(queues) < 4 {
			return fmt.Errorf("messages in queues %v", queues)
		}
		return nil
	})
	subscribe(fresh)
	for len(queues) > 0 {
		select {
		case d := <-got:
			if string(d.Body) == "old" {
				t.Errorf("an old message came")
			}
			delete(queues, d.Queue)
		case <-time.After(time.Minute):
			t.Fatalf("nothing came from queues %v", queues)
		}
	}
}

// TestBeginWithoutTheGrantGet: a broker searches for an instant only for users with the grant Get. Without it the driver searches with
// pulls, and begins at the same message.
func TestBeginWithoutTheGrantGet(t *testing.T) {
	t.Parallel()
	mq := rocketmqtest.RunT(t)
	var refused atomic.Int32
	mq.Control(func(r rocketmqtest.Request) rocketmqtest.Action {
		if r.Code != int(remoting.SearchOffset) {
			return rocketmqtest.Pass
		}
		refused.Add(1)
		return rocketmqtest.Respond(int(remoting.NoPermission), "User:app has no permission")
	})
	ctx := deadline(t, time.Minute)
	c := open(t, func(c *rocketmq.Config) { c.NameServers = []string{mq.Addr()} })
	topic := unique("search")
	createTopic(t, c, broker.Topic{Name: topic, Queues: 1})
	const messages = 21
	for i := range messages {
		if _, err := c.Send(ctx, broker.Message{Topic: topic, Body: []byte(strconv.Itoa(i))}); err != nil {
			t.Fatal(err)
		}
		mq.FastForward(time.Minute)
	}
	collect := func(begin broker.Begin, n int) []broker.Delivery {
		t.Helper()
		got := make(chan broker.Delivery, messages)
		k, err := c.Subscribe(ctx, broker.Subscription{Group: unique("group"), Topics: []string{topic}, Begin: begin},
			func(_ context.Context, d broker.Delivery) error { got <- d; return nil })
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = k.Stop(ctx) }()
		ds := make([]broker.Delivery, messages)
		for range n {
			select {
			case d := <-got:
				ds[d.Offset] = d
			case <-ctx.Done():
				t.Fatalf("%v: messages are missing", begin)
			}
		}
		return ds
	}
	stored := collect(broker.BeginOldest(), messages)
	for _, first := range []int{0, 1, 10, 19, 20} {
		got := collect(broker.BeginAt(stored[first].Stored), messages-first)
		for i, d := range got {
			if came := d.ID != ""; came != (i >= first) {
				t.Errorf("begin at message %d: message %d came: %v", first, i, came)
			}
		}
	}
	if refused.Load() == 0 {
		t.Error("no search was requested")
	}
}
