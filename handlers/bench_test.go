package handlers

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// BenchmarkLanes measures the way from a delivery to its settling, with a handler that inserts a row, for events spread
// over so many streams. Each caller delivers one event at a time, as the broker's 256 do.
func BenchmarkLanes(b *testing.B) {
	for _, streams := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			env := setup(b)
			cfg := env.config()
			cfg.GapWait = 10 * time.Second
			r := env.router(cfg)
			r.Handle("billing", topic, "order.changed", effect)
			env.start(r)
			c := (*r.running.Load())[0]
			var deliveries []broker.Delivery
			chains := make([]*chain, streams)
			for i := range chains {
				chains[i] = newChain(subjectN(i))
			}
			for i := range b.N {
				deliveries = append(deliveries, broker.Delivery{Message: wire.MessageOf(chains[i%streams].next(1)[0]), Attempt: 1})
			}
			feed := make(chan broker.Delivery, b.N)
			for _, d := range deliveries {
				feed <- d
			}
			close(feed)
			b.ResetTimer()
			var callers sync.WaitGroup
			for range cfg.withDefaults().MaxInFlight {
				callers.Go(func() {
					for d := range feed {
						if err := c.receive(context.Background(), d); err != nil {
							b.Error(err)
						}
					}
				})
			}
			callers.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			if n := env.effectCount(); n != b.N {
				b.Errorf("%d effects, want %d", n, b.N)
			}
		})
	}
}
