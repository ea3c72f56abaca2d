//go:build !race

package rocketmqtest_test

import (
	"context"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/broker/brokertest"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// TestConformance runs the suite that the driver passes on a real broker, for each kind of broker that there is a timer on.
func TestConformance(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(*rocketmqtest.Config)
		format rocketmq.TimerFormat
	}{
		{"5.3", func(*rocketmqtest.Config) {}, rocketmq.Apache5},
		{"5.5", func(c *rocketmqtest.Config) { c.Version = rocketmqtest.RocketMQ55 }, rocketmq.Apache5},
		{"DMS", func(c *rocketmqtest.Config) { c.DMS = true }, rocketmq.DMS},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			config := rocketmqtest.Config{
				MaxMessageSize:     2 << 20,
				TransactionTimeout: 500 * time.Millisecond, CheckInterval: 250 * time.Millisecond, CheckMax: 240, OpBatchInterval: 100 * time.Millisecond,
				TimerPrecision: 100 * time.Millisecond,
			}
			c.change(&config)
			conformance(t, rocketmqtest.RunT(t, config), c.format)
		})
	}
}

func conformance(t *testing.T, mq *rocketmqtest.Server, format rocketmq.TimerFormat) {
	brokertest.Run(t, func(t *testing.T) brokertest.Harness {
		admin := open(t, mq)
		return brokertest.Harness{
			Open: func(t *testing.T) brokertest.Driver { return openFormat(t, mq, format) },
			Close: func(t *testing.T, d brokertest.Driver) {
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				defer cancel()
				if err := d.(*rocketmq.Client).Close(ctx); err != nil {
					t.Errorf("close: %v", err)
				}
			},
			CreateTopic: func(t *testing.T, topic broker.Topic) {
				if err := admin.CreateTopics(t.Context(), topic); err != nil {
					t.Fatal(err)
				}
			},
			MaxBody: 2 << 20,
		}
	})
}

func open(t testing.TB, mq *rocketmqtest.Server) *rocketmq.Client {
	t.Helper()
	return openFormat(t, mq, rocketmq.Apache5)
}

func openFormat(t testing.TB, mq *rocketmqtest.Server, format rocketmq.TimerFormat) *rocketmq.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := rocketmq.Open(ctx, rocketmq.Config{NameServers: []string{mq.Addr()}, Service: "conformance", TimerFormat: format, SendTimeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}
