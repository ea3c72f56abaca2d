package frame

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/outbox"
)

var streamCounts = []int{1, 8, 64}

// handled is one measurement of handling.
type handled struct {
	kind    string
	streams int
	perSec  float64
}

var handlerKinds = []struct {
	name string
	fn   func(ctx context.Context, tx rocketflow.Tx, c Credited) error
}{
	{"empty handler", func(context.Context, rocketflow.Tx, Credited) error { return nil }},
	{"handler with an insert", func(ctx context.Context, tx rocketflow.Tx, c Credited) error {
		_, err := tx.Exec(ctx, InsertBusiness, c.Account, c.Cents)
		return err
	}},
}

// handling measures how fast a router handles events that wait at the broker, from its start to the last commit. The events
// belong to a number of streams in turn.
func (b *Bed) handling(ctx context.Context, o Options) ([]handled, error) {
	var all []handled
	for round := range o.Rounds {
		for _, streams := range streamCounts {
			for kind := range handlerKinds {
				h, err := b.measureHandling(ctx, o, kind, streams)
				if err != nil {
					return nil, fmt.Errorf("round %d: handling %d streams: %w", round+1, streams, err)
				}
				fmt.Fprintf(os.Stderr, "round %d/%d: %-22s %2d streams %8.0f/s\n", round+1, o.Rounds, h.kind, streams, h.perSec)
				all = append(all, h)
			}
		}
	}
	return all, nil
}

func (b *Bed) measureHandling(ctx context.Context, o Options, kind, streams int) (handled, error) {
	topic, err := b.NewTopic(ctx)
	if err != nil {
		return handled{}, err
	}
	box, err := outbox.New(outbox.Config{Pool: b.Pool, Broker: b.Client, Source: "bench", Group: topic, Schema: b.Schema, Path: outbox.Relay, RelayBuffer: 1 << 20})
	if err != nil {
		return handled{}, err
	}
	if err := box.Start(ctx); err != nil {
		return handled{}, err
	}
	defer func() { _ = box.Stop(ctx) }()
	if err := b.fill(ctx, box, topic, o.Events, streams); err != nil {
		return handled{}, err
	}

	var done atomic.Int64
	finished := make(chan struct{})
	router, err := handlers.New(handlers.Config{
		Pool: b.Pool, Source: "bench", Transactor: box, Broker: b.Client, Schema: b.Schema, GroupPrefix: topic + "-",
		Listener: &handlers.Listener{Committed: func(i handlers.BatchInfo) {
			if n := int64(len(i.Events)); n > 0 && done.Add(n) == int64(o.Events) { // a turn may have handled none
				close(finished)
			}
		}},
	})
	if err != nil {
		return handled{}, err
	}
	// The payload's topic is chosen at run time, so the handler is registered by name.
	router.Handle("bench", topic, "account.credited", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		c, err := wire.DecodeBody[Credited](e)
		if err != nil {
			return err
		}
		return handlerKinds[kind].fn(ctx, tx, c)
	})
	begin := time.Now()
	if err := router.Start(ctx); err != nil {
		return handled{}, err
	}
	defer func() { _ = router.Stop(ctx) }()
	select {
	case <-finished:
	case <-time.After(2 * time.Minute):
		return handled{}, fmt.Errorf("%d of %d events handled", done.Load(), o.Events)
	case <-ctx.Done():
		return handled{}, ctx.Err()
	}
	return handled{kind: handlerKinds[kind].name, streams: streams, perSec: float64(o.Events) / time.Since(begin).Seconds()}, nil
}

// fill publishes the events and waits until the broker has them.
func (b *Bed) fill(ctx context.Context, box *outbox.Outbox, topic string, events, streams int) error {
	const each = 50 // events of a transaction
	var group errgroup.Group
	group.SetLimit(8)
	for first := 0; first < events; first += each {
		group.Go(func() error {
			return box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
				for i := first; i < min(first+each, events); i++ {
					if err := tx.Publish(ctx, Credited{topic: topic, Account: fmt.Sprintf("account-%d", i%streams), Cents: int64(i), Note: Note}); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for {
		owed, _, err := box.Backlog(ctx)
		if err != nil || owed == 0 {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}
