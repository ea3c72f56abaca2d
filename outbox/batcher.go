package outbox

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/clock"
)

// batcher writes items to Postgres in batches, in the background. A batch that can't be written is retried until it can.
type batcher[T any] struct {
	items  chan T
	failed atomic.Bool
	write  func(ctx context.Context, batch []T, failures *failureStreak) error
	group  background.Group
}

const (
	batchBuffer = 8192 // items that wait
	batchSize   = 1024
	// batchPace is the minimum time between two writes, so that items gather under load. After a pause the first write is
	// made at once.
	batchPace = 20 * time.Millisecond
	// batchRetry is the pause after a write that failed.
	batchRetry = time.Second
	// batchTimeout bounds a write.
	batchTimeout = 10 * time.Second
)

func startBatcher[T any](write func(context.Context, []T, *failureStreak) error) *batcher[T] {
	b := &batcher[T]{items: make(chan T, batchBuffer), write: write}
	_ = b.group.Start(context.Background(), func(context.Context) error {
		b.group.Go(b.run)
		return nil
	})
	return b
}

// add never blocks. While Postgres is so slow that the buffer is full the item is dropped: the sweep then sends its event
// again.
func (b *batcher[T]) add(item T) {
	select {
	case b.items <- item:
	default:
	}
}

// failing reports whether the last write failed and is to be tried again.
func (b *batcher[T]) failing() bool { return b.failed.Load() }

func (b *batcher[T]) run(ctx context.Context) {
	batch := make([]T, 0, batchSize)
	var next time.Time // the earliest time of the next write
	var failures failureStreak
	for {
		if !b.failed.Load() {
			select {
			case item := <-b.items:
				batch = append(batch[:0], item)
			case <-ctx.Done():
				if len(b.items) == 0 {
					return
				}
				batch = batch[:0]
			}
		}
		if wait := time.Until(next); wait > 0 {
			background.Sleep(ctx, clock.System{}, wait)
		}
		for len(batch) < batchSize && len(b.items) > 0 {
			batch = append(batch, <-b.items)
		}
		// Not bound to ctx: stop waits for the last batch as long as its own context allows.
		write, cancel := context.WithTimeout(context.WithoutCancel(ctx), batchTimeout)
		next = time.Now().Add(batchPace)
		err := b.write(write, batch, &failures)
		cancel()
		b.failed.Store(err != nil)
		if err != nil && ctx.Err() != nil {
			return // the sweep, after the next start or of another process, finds what is lost
		}
		if err != nil {
			next = time.Now().Add(batchRetry)
		}
	}
}

// stop writes the buffered items until ctx ends.
func (b *batcher[T]) stop(ctx context.Context) { _ = b.group.Stop(ctx) }
