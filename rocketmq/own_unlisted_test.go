package rocketmq_test

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"testing"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/poll"
)

// One of two brokers was away so long that the group has divided the queues of the other alone. When it answers again it is read, although
// no name server lists it.
func TestUnlistedBrokerThatIsBackIsRead(t *testing.T) {
	t.Parallel()
	a, b := rocketmqtest.RunT(t), rocketmqtest.RunT(t)
	a.CreateTopic("topic", 2)
	b.CreateTopic("topic", 2)
	var away atomic.Bool
	var looks atomic.Int32 // at the topic, while b isn't listed
	names := newFront(t, a, func(request, response *remoting.Command) {
		servers := map[string]remoting.BrokerData{"broker-a": {Name: "broker-a", Addresses: map[string]string{"0": a.BrokerAddr()}}}
		if !away.Load() {
			servers["broker-b"] = remoting.BrokerData{Name: "broker-b", Addresses: map[string]string{"0": b.BrokerAddr()}}
		}
		var body any
		switch {
		case request.Code == remoting.ClusterInfo:
			body = remoting.Cluster{Brokers: servers}
		case request.Code == remoting.RouteOfTopic && request.Ext["topic"] == "topic":
			route := remoting.Route{}
			for name, server := range servers {
				route.Queues = append(route.Queues, remoting.QueueData{Broker: name, Read: 2, Write: 2, Perm: remoting.PermRead | remoting.PermWrite})
				route.Brokers = append(route.Brokers, server)
			}
			if away.Load() {
				looks.Add(1)
			}
			body = route
		default:
			return
		}
		response.Body, _ = json.Marshal(body)
	})
	names.asIs = true
	c := open(t, func(c *rocketmq.Config) { c.NameServers, c.Transport = []string{names.address}, rocketmq.Own })
	came := make(chan broker.Delivery, 100)
	subscribe := func() broker.Consumer {
		k, err := c.Subscribe(t.Context(), broker.Subscription{Group: "group", Topics: []string{"topic"}}, func(_ context.Context, d broker.Delivery) error {
			came <- d
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	subscribe()
	sendRaw(t, a, "topic", 0, nil, []byte("1"))
	sendRaw(t, b, "topic", 0, nil, []byte("2"))
	expect(t, came, 1, 2)

	away.Store(true)
	b.Stop(rocketmqtest.LoseNothing)
	second := subscribe() // the brokers tell the first one, which divides the queues again
	poll.Until(t, "both have looked at the queues that are left", func() bool { return looks.Load() >= 3 })
	if err := second.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	sendRaw(t, b, "topic", 0, nil, []byte("3"))
	for string(next(t, came).Body) != "3" { // the broker may not have been told that the second was handled
	}
}
