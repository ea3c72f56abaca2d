//go:build !race

package rocketmqtest_test

import (
	"context"
	"testing"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// BenchmarkClient sends through the unmodified client.
func BenchmarkClient(b *testing.B) {
	client := func(b *testing.B) *rocketmq.Client {
		mq := rocketmqtest.RunT(b)
		mq.CreateTopic(wireTopic, 4)
		return open(b, mq)
	}
	message := broker.Message{Topic: wireTopic, Body: make([]byte, 512)}
	parallel := func(b *testing.B, do func() error) {
		if err := do(); err != nil { // it learns the route
			b.Fatal(err)
		}
		b.SetParallelism(8)
		b.ResetTimer()
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				if err := do(); err != nil {
					b.Error(err)
					return
				}
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	}
	b.Run("Send", func(b *testing.B) {
		c := client(b)
		parallel(b, func() error {
			_, err := c.Send(b.Context(), message)
			return err
		})
	})
	b.Run("Transaction", func(b *testing.B) {
		c, err := client(b).OpenTransactionProducer(b.Context(), wireGroup, func(context.Context, broker.Check) (broker.Decision, func(error)) { return broker.Unknown, nil })
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close(context.Background())
		parallel(b, func() error {
			half, err := c.Prepare(b.Context(), message)
			if err != nil {
				return err
			}
			return c.Commit(b.Context(), half)
		})
	})
}
