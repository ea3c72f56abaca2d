package frame

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rocketflow/rocketflow"
)

// published is one measurement of publishing.
type published struct {
	row        string
	callers    int
	perSec     float64
	latency    []time.Duration // commit to handler
	duplicates int
	spent      usage
	events     int
}

func (b *Bed) publishing(ctx context.Context, o Options, rows []Row) ([]published, error) {
	if err := b.warm(ctx, o, rows); err != nil {
		return nil, fmt.Errorf("warm up: %w", err)
	}
	var all []published
	for round := range o.Rounds {
		for _, callers := range o.Callers {
			for _, i := range rand.Perm(len(rows)) {
				p, err := b.measurePublishing(ctx, o, rows[i], callers)
				if err != nil {
					return nil, fmt.Errorf("round %d: %s, %d callers: %w", round+1, rows[i].Name, callers, err)
				}
				fmt.Fprintf(os.Stderr, "round %d/%d: %-14s %2d callers %8.0f/s\n", round+1, o.Rounds, p.row, callers, p.perSec)
				all = append(all, p)
			}
		}
	}
	return all, nil
}

// warm runs all ways without measuring, for a time in total: a broker that was just started uses much CPU for a minute to
// compile its code.
func (b *Bed) warm(ctx context.Context, o Options, rows []Row) error {
	o.Duration = o.WarmUp / time.Duration(len(rows))
	if o.Duration <= 0 {
		return nil
	}
	for _, row := range rows {
		if _, err := b.measurePublishing(ctx, o, row, slices.Max(o.Callers)); err != nil {
			return fmt.Errorf("%s: %w", row.Name, err)
		}
	}
	return nil
}

func (b *Bed) measurePublishing(ctx context.Context, o Options, row Row, callers int) (published, error) {
	watch := NewStopwatch()
	w, err := row.Open(ctx, b, watch)
	if err != nil {
		return published{}, err
	}
	defer w.Close()
	if err := Warm(ctx, w, watch, callers, 0); err != nil {
		return published{}, err
	}
	before, err := b.meter.read(ctx, w.Server)
	if err != nil {
		return published{}, err
	}
	begin := time.Now()
	load := StartLoad(ctx, w, callers)
	time.Sleep(o.Duration)
	done, err := load.Stop()
	if err != nil {
		return published{}, err
	}
	// All events must arrive: a way that loses events is not measured. Rates are of delivered events, so the time to deliver the
	// backlog that is left when the callers stop counts.
	if err := Wait(ctx, watch); err != nil {
		return published{}, err
	}
	took := time.Since(begin)
	after, err := b.meter.read(ctx, w.Server)
	if err != nil {
		return published{}, err
	}
	return published{
		row: row.Name, callers: callers, perSec: float64(done) / took.Seconds(), latency: watch.took, duplicates: watch.doubled,
		spent: after.minus(before), events: done,
	}, nil
}

// Warm publishes for a while, at least a tenth of a second, and waits until the events have arrived. After it the consumer has
// its queues, connections are open and statements are prepared.
func Warm(ctx context.Context, w *Way, watch *Stopwatch, callers int, d time.Duration) error {
	load := StartLoad(ctx, w, callers)
	time.Sleep(max(d, 100*time.Millisecond))
	if _, err := load.Stop(); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	if err := Wait(ctx, watch); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	watch.reset()
	return nil
}

// Wait waits until all committed events have arrived, for at most two minutes.
func Wait(ctx context.Context, watch *Stopwatch) error {
	deadline := time.Now().Add(2 * time.Minute)
	for {
		arrived, missing := watch.Counts()
		switch {
		case missing == 0:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("%d events arrived, %d did not", arrived, missing)
		case ctx.Err() != nil:
			return ctx.Err()
		}
		time.Sleep(time.Millisecond)
	}
}

// Load is a number of callers, each of which publishes one event after the other as fast as it can.
type Load struct {
	group  sync.WaitGroup
	done   atomic.Int64
	ended  atomic.Bool
	failed atomic.Pointer[error]
}

// StartLoad starts a number of callers. Call Stop on the result.
func StartLoad(ctx context.Context, w *Way, callers int) *Load {
	l := &Load{}
	for c := range callers {
		l.group.Go(func() {
			for i := int64(0); !l.ended.Load() && ctx.Err() == nil; i++ {
				// Each caller has 64 accounts of its own, so no stream is shared, as with orders.
				err := w.Publish(ctx, fmt.Sprintf("account-%d-%d", c, i%64), i)
				switch {
				case err == nil:
					l.done.Add(1)
				case errors.Is(err, rocketflow.ErrBackpressure): // nothing was written; the caller tries again
					time.Sleep(time.Millisecond)
				default:
					l.failed.CompareAndSwap(nil, &err)
					return
				}
			}
		})
	}
	return l
}

// Done returns the number of committed transactions.
func (l *Load) Done() int { return int(l.done.Load()) }

// Stop waits for the callers and returns the number of committed transactions, and the first error that ended a caller.
// Back-pressure does not end one.
func (l *Load) Stop() (int, error) {
	l.ended.Store(true)
	l.group.Wait()
	if err := l.failed.Load(); err != nil {
		return 0, *err
	}
	return l.Done(), nil
}
