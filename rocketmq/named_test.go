package rocketmq_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// Each request to a broker names it: a proxy knows by that for whom a request is.
func TestEachRequestNamesItsBroker(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	mq := rocketmqtest.RunT(t)
	var mu sync.Mutex
	unnamed, named := map[string]bool{}, map[string]bool{}
	defer mq.Control(func(r rocketmqtest.Request) rocketmqtest.Action {
		switch r.Name {
		case "GET_ROUTEINFO_BY_TOPIC", "GET_BROKER_CLUSTER_INFO", "NOTIFY_CONSUMER_IDS_CHANGED": // to a name server, or to the client
			return rocketmqtest.Pass
		}
		mu.Lock()
		defer mu.Unlock()
		if r.Ext["bname"]+r.Ext["n"] == "" {
			unnamed[r.Name] = true
		} else {
			named[r.Name] = true
		}
		return rocketmqtest.Pass
	})()
	c := open(t, func(c *rocketmq.Config) { c.NameServers, c.Transport = []string{mq.Addr()}, rocketmq.Own })
	if err := c.CreateTopics(ctx, broker.Topic{Name: "topic"}); err != nil {
		t.Fatal(err)
	}
	m := broker.Message{Topic: "topic", Keys: []string{"key"}, Body: []byte("m")}
	tr, err := c.OpenTransactionProducer(ctx, "producers", func(context.Context, broker.Check) (broker.Decision, func(error)) { return broker.Unknown, nil })
	if err != nil {
		t.Fatal(err)
	}
	half, err := tr.Prepare(ctx, m)
	if err == nil {
		err = tr.Commit(ctx, half)
	}
	if err == nil {
		_, err = c.Send(ctx, m)
	}
	for _, failed := range c.SendGroup(ctx, []broker.Message{m, m}) {
		if err == nil {
			err = failed
		}
	}
	timer, scheduled := c.Schedule(ctx, m, time.Now().Add(time.Hour))
	if scheduled == nil {
		scheduled = c.Cancel(ctx, timer)
	}
	if err != nil || scheduled != nil {
		t.Fatal(err, scheduled)
	}
	came := make(chan broker.Delivery, 10)
	k, err := c.Subscribe(ctx, broker.Subscription{Group: "group", Topics: []string{"topic"}, Serial: true, Begin: broker.BeginAt(time.Now().Add(-time.Hour))}, func(_ context.Context, d broker.Delivery) error {
		came <- d
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		next(t, came)
	}
	if _, err := c.FindMessages(ctx, "topic", "key", time.Now().Add(-time.Hour), time.Now()); err != nil {
		t.Error(err)
	}
	if _, err := c.QueuePositions(ctx, "group", "topic"); err != nil {
		t.Error(err)
	}
	for _, err := range []error{k.Stop(ctx), tr.Close(ctx)} {
		if err != nil {
			t.Error(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for name := range unnamed {
		t.Errorf("%s doesn't name its broker", name)
	}
	if len(named) < 12 {
		t.Errorf("only these requests were seen: %v", named)
	}
}
