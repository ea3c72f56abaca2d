package outbox

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/internal/lazytx"
)

// acker writes down what the broker has, in batches behind the hot path. An ack that is lost costs a double, which the
// consumers' inbox absorbs, so nobody waits for it.
type acker = batcher[uuid.UUID]

func (o *Outbox) startAcks() *acker {
	return startBatcher(func(ctx context.Context, ids []uuid.UUID, trouble *trouble) error {
		err := o.ack(ctx, ids)
		if err != nil && trouble.begins(err) {
			o.log.Warn("acks can't be written; they are tried again, and their events are sent twice should this process end before",
				"events", len(ids), "error", err)
		} else if err == nil {
			trouble.ends(o.log, "acks are written again")
		}
		return err
	})
}

// ack inserts acks.
func (o *Outbox) ack(ctx context.Context, ids []uuid.UUID) error {
	begin := time.Now()
	err := o.query(ctx, func(rows pgx.Rows) error { rows.Close(); return rows.Err() }, "Ack", texts(ids))
	o.listener.Acked(AckedInfo{IDs: ids, Took: time.Since(begin), Err: err})
	return err
}

// query runs a statement by itself in one round trip, at read committed whatever the database's default is: above that it
// could fail because another process acks the same event.
func (o *Outbox) query(ctx context.Context, scan func(pgx.Rows) error, name string, args ...any) error {
	b := &pgx.Batch{}
	b.Queue(o.queries.Get(name), args...).Query(scan)
	return lazytx.Run(ctx, o.config.Pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, b)
}

// texts is what parameters of type uuid[] are given as, for all of pgx's ways to run a query.
func texts(ids []uuid.UUID) []string {
	all := make([]string, len(ids))
	for i, id := range ids {
		all[i] = id.String()
	}
	return all
}

// batcher writes items in batches. While writing fails it keeps a batch and tries again.
type batcher[T any] struct {
	items  chan T
	failed atomic.Bool
	write  func(ctx context.Context, batch []T, trouble *trouble) error
	done   chan struct{}
	cancel context.CancelFunc
}

const (
	batchBuffer = 8192
	batchSize   = 1024
	// batchPace is the least time from one insert to the next: under load items gather meanwhile, and Postgres has so much
	// less to do. After a pause the first goes at once.
	batchPace = 20 * time.Millisecond
	// batchRetry is the pause after a write that failed.
	batchRetry = time.Second
)

func startBatcher[T any](write func(context.Context, []T, *trouble) error) *batcher[T] {
	ctx, cancel := context.WithCancel(context.Background())
	b := &batcher[T]{items: make(chan T, batchBuffer), write: write, done: make(chan struct{}), cancel: cancel}
	go b.run(ctx)
	return b
}

// add never blocks: when Postgres is so slow that the buffer is full, what the sweep does twice is the lesser evil.
func (b *batcher[T]) add(item T) {
	select {
	case b.items <- item:
	default:
	}
}

// failing tells whether the last write failed and is to be tried again.
func (b *batcher[T]) failing() bool { return b.failed.Load() }

func (b *batcher[T]) run(ctx context.Context) {
	defer close(b.done)
	batch := make([]T, 0, batchSize)
	var next time.Time // the next insert, at the earliest
	var trouble trouble
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
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
			}
		}
		for len(batch) < batchSize && len(b.items) > 0 {
			batch = append(batch, <-b.items)
		}
		// Not bound to ctx: stop waits for the last batch, and gives up by its own context.
		write, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		next = time.Now().Add(batchPace)
		err := b.write(write, batch, &trouble)
		cancel()
		b.failed.Store(err != nil)
		if err != nil && ctx.Err() != nil {
			return // the sweep of the next start, or of another process, finds what is lost
		}
		if err != nil {
			next = time.Now().Add(batchRetry)
		}
	}
}

// stop writes what is there and waits for it until ctx ends.
func (b *batcher[T]) stop(ctx context.Context) {
	b.cancel()
	select {
	case <-b.done:
	case <-ctx.Done():
	}
}

// texts is what parameters of type uuid[] are given as, for all of pgx's ways to run a query.
