package clusters

import (
	"context"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/broker/brokertest"
	"github.com/rocketflow/rocketflow/internal/devstack"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// TestConformanceThroughAProxy runs the conformance suite through RocketMQ's own proxy. What isn't possible through a proxy is refused.
func TestConformanceThroughAProxy(t *testing.T) {
	cluster := start(t, devstack.ClusterConfig{Brokers: []string{"broker-a"}, Proxy: true})
	open := func(t *testing.T, config rocketmq.Config) *rocketmq.Client {
		t.Helper()
		config.Service = "proxy-test"
		c, err := rocketmq.Open(bounded(t, time.Minute), config)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	shut := func(t *testing.T, c *rocketmq.Client) {
		t.Helper()
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
	operator := open(t, rocketmq.Config{NameServers: cluster.NameServerAddresses()})
	t.Cleanup(func() { shut(t, operator) }) // the suite runs in parallel
	brokertest.Run(t, func(t *testing.T) brokertest.Harness {
		return brokertest.Harness{
			Open: func(t *testing.T) brokertest.Driver {
				return open(t, rocketmq.Config{NameServers: []string{cluster.Proxy.Address()}, Profile: rocketmq.Proxy5})
			},
			Close: func(t *testing.T, d brokertest.Driver) { shut(t, d.(*rocketmq.Client)) },
			CreateTopic: func(t *testing.T, topic broker.Topic) {
				if err := operator.CreateTopics(bounded(t, time.Minute), topic); err != nil {
					t.Fatal(err)
				}
			},
			NoHalfMessages: true, OneType: true, BrokersByTopic: true,
		}
	})
}
