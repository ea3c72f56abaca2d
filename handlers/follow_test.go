package handlers

import (
	"context"
	"sync"
	"testing"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/operate"
)

// What was held up catches up in batches, in order; a follower that fails in the middle of a batch holds those behind
// it, once more.
func TestFollowersCatchUpInBatches(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var mu sync.Mutex
	var batches []int
	cfg := b.config()
	cfg.BatchSize = 16
	cfg.Listener = &Listener{Committed: func(i BatchInfo) {
		mu.Lock()
		defer mu.Unlock()
		batches = append(batches, len(i.Events))
	}}
	events := newChain("a").next(120)
	broken := map[string]bool{events[0].ID.String(): true, events[60].ID.String(): true}
	r := b.router(cfg)
	r.Handle("billing", topic, "order.changed", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		mu.Lock()
		defer mu.Unlock()
		if broken[e.ID.String()] {
			return Dead(errBroken)
		}
		return effect(ctx, tx, e)
	})
	b.start(r)
	b.broker.publish(events...)
	fix := func(i int) {
		t.Helper()
		mu.Lock()
		delete(broken, events[i].ID.String())
		mu.Unlock()
		if n, err := b.operator.RetryDeadLetters(context.Background(), operate.ParkedFilter{EventID: events[i].ID}); n != 1 || err != nil {
			t.Fatalf("retried %d: %v", n, err)
		}
	}
	poll.Until(t, "all are held up", func() bool { return b.parkedCount(Gap) == 119 && b.parkedCount(DeadLetter) == 1 })
	mu.Lock()
	batches = nil // only the batches from here on count
	mu.Unlock()
	fix(0)
	poll.Until(t, "those before the other broken one ran", func() bool { return b.effectCount() == 60 && b.parkedCount(DeadLetter) == 1 })
	fix(60)
	poll.Until(t, "all ran", func() bool { return b.effectCount() == 120 })
	b.wantOrder("a", events...)
	mu.Lock()
	defer mu.Unlock()
	if n := len(batches); n > 30 {
		t.Errorf("120 events caught up in %d transactions", n)
	}
}
