package main

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/outbox"
)

var streamCounts = []int{1, 8, 64}

// handled is one measurement.
type handled struct {
	kind    string
	streams int
	perSec  float64
}

var handlerKinds = []struct {
	name string
	fn   func(ctx context.Context, tx rocketflow.Tx, c credited) error
}{
	{"empty handler", func(context.Context, rocketflow.Tx, credited) error { return nil }},
	{"handler with an insert", func(ctx context.Context, tx rocketflow.Tx, c credited) error {
		_, err := tx.Exec(ctx, insertBusiness, c.Account, c.Cents)
		return err
	}},
}

// handling measures how fast a router works off a backlog whose events are dealt to so many streams in turn, all at
// once, from its start to the last commit.
func (b *bed) handling(ctx context.Context) ([]handled, error) {
	var all []handled
	for round := range b.rounds {
		for _, streams := range streamCounts {
			for kind := range handlerKinds {
				h, err := b.measureHandling(ctx, kind, streams)
				if err != nil {
					return nil, fmt.Errorf("round %d: handling %d streams: %w", round+1, streams, err)
				}
				fmt.Fprintf(os.Stderr, "round %d/%d: %-22s %2d streams %8.0f/s\n", round+1, b.rounds, h.kind, streams, h.perSec)
				all = append(all, h)
			}
		}
	}
	return all, nil
}

func (b *bed) measureHandling(ctx context.Context, kind, streams int) (handled, error) {
	topic, err := b.newTopic(ctx, fmt.Sprint(time.Now().UnixNano()))
	if err != nil {
		return handled{}, err
	}
	box, err := outbox.New(outbox.Config{Pool: b.pool, Broker: b.client, Source: "bench", Group: topic, Schema: b.schema, Gear: outbox.Relay, RelayBuffer: 1 << 20})
	if err != nil {
		return handled{}, err
	}
	if err := box.Start(ctx); err != nil {
		return handled{}, err
	}
	defer func() { _ = box.Stop(ctx) }()
	if err := b.fill(ctx, box, topic, streams); err != nil {
		return handled{}, err
	}

	var done atomic.Int64
	finished := make(chan struct{})
	router, err := handlers.New(handlers.Config{
		Pool: b.pool, Transactor: box, Broker: b.client, Schema: b.schema, GroupPrefix: topic + "-",
		Listener: &handlers.Listener{Committed: func(i handlers.BatchInfo) {
			if done.Add(int64(len(i.Events))) == int64(b.events) {
				close(finished)
			}
		}},
	})
	if err != nil {
		return handled{}, err
	}
	// The payload's topic is chosen at run time, so the handler is registered by name.
	router.Handle("bench", topic, "account.credited", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		c, err := rocketflow.Decode[credited](e)
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
		return handled{}, fmt.Errorf("%d of %d events handled", done.Load(), b.events)
	case <-ctx.Done():
		return handled{}, ctx.Err()
	}
	return handled{kind: handlerKinds[kind].name, streams: streams, perSec: float64(b.events) / time.Since(begin).Seconds()}, nil
}

// fill publishes the backlog and waits until the broker has it.
func (b *bed) fill(ctx context.Context, box *outbox.Outbox, topic string, streams int) error {
	const each = 50 // events of a transaction
	var group errgroup.Group
	group.SetLimit(8)
	for first := 0; first < b.events; first += each {
		group.Go(func() error {
			return box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
				for i := first; i < min(first+each, b.events); i++ {
					if err := tx.Publish(ctx, credited{topic: topic, Account: fmt.Sprintf("account-%d", i%streams), Cents: int64(i), Note: note}); err != nil {
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
