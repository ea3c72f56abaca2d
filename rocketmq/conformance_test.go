package rocketmq_test

import (
	"context"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/broker/brokertest"
	"github.com/rocketflow/rocketflow/rocketmq"
)

func TestConformance(t *testing.T) {
	t.Run("ClientGo", func(t *testing.T) {
		if transport != rocketmq.ClientGo {
			t.Skip("only the transport Own is tested")
		}
		conformance(t, rocketmq.ClientGo)
	})
	t.Run("Own", func(t *testing.T) { conformance(t, rocketmq.Own) })
}

func conformance(t *testing.T, transport rocketmq.Transport) {
	brokertest.Run(t, func(t *testing.T) brokertest.Harness {
		return brokertest.Harness{
			Open: func(t *testing.T) brokertest.Driver {
				return open(t, func(c *rocketmq.Config) { c.Transport = transport })
			},
			Close: func(t *testing.T, d brokertest.Driver) {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				if err := d.(*rocketmq.Client).Close(ctx); err != nil {
					t.Error(err)
				}
			},
			CreateTopic: func(t *testing.T, topic broker.Topic) {
				ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
				defer cancel()
				if err := open(t).CreateTopics(ctx, topic); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}
