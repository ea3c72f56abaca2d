package handlers

import (
	"context"
	"time"

	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/inbox"
)

const (
	// maxPause is how long findDue pauses at most: another process may park an event, an operator may retry one.
	maxPause = 3 * time.Second
	minPause = 20 * time.Millisecond
	// sweepEvery is how often it looks for parked events whose predecessors were deleted by hand.
	sweepEvery = time.Minute
	// takenMargin is added to the handler's time for what a lane does before.
	takenMargin = 10 * time.Second
	// busyRecheck is when to look again at what is due behind a handler that takes long.
	busyRecheck = 5 * time.Second
)

// maxRetries is how many parked events may be with the lanes at a time.
func (c *consumer) maxRetries() int { return 4 * c.opts.Lanes }

// findDue takes parked events that are due and gives them to the lanes, which run them between deliveries: what runs at a
// time, and the order within a stream, stay bounded by the lanes. It returns when stopping ends, and no statement is cut off
// then, as what it took would wait; statements end with ctx.
func (c *consumer) findDue(stopping, ctx context.Context) {
	var swept time.Time
	background.Loop{Clock: c.cfg.Clock, Wake: c.wake}.Run(stopping, func(context.Context) time.Duration {
		pause, err := c.takeDue(ctx)
		if now := c.now(); err == nil && now.Sub(swept) > sweepEvery {
			swept = now
			err = c.wakeStranded(ctx)
		}
		switch {
		case err == nil:
			c.findStall.end()
		case ctx.Err() == nil:
			pause = time.Second
			c.findStall.begin(err, pause)
		}
		return pause
	})
}

// takeDue takes what is due and returns how long to pause then.
func (c *consumer) takeDue(ctx context.Context) (time.Duration, error) {
	free := c.maxRetries() - int(c.retries.Load())
	if free <= 0 {
		return maxPause, nil // a lane signals when it is done with one
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	taken, pause, err := c.store.TakeDue(ctx, c.cfg.Pool, c.routes(), free, c.opts.Timeout+unresponsiveAfter+takenMargin, maxPause)
	if err != nil {
		return 0, err
	}
	due := make([]parkedKey, len(taken))
	for i, d := range taken {
		due[i] = parkedKey{source: d.Stream.Source, id: d.ID, keyed: d.Sequence > 0 || d.Timeout, subject: d.Stream.Subject}
		if d.Sequence > 0 {
			due[i].stream = d.Stream
		}
	}
	if err := c.giveDue(ctx, due); err != nil {
		return 0, err
	}
	if len(due) == 0 {
		pause = max(pause, minPause) // what is due is locked by another process
	}
	return pause, nil
}

// giveDue gives due events to the lanes, but for those whose group has been busy for long: they would take the place of
// others.
func (c *consumer) giveDue(ctx context.Context, due []parkedKey) error {
	var busy []parkedKey
	for _, k := range due {
		c.retries.Add(1)
		if !c.queue.addDue(k) {
			c.retries.Add(-1)
			busy = append(busy, k)
		}
	}
	after := busyRecheck
	if c.isStopping() {
		after = 0
	}
	return c.putBack(ctx, busy, after)
}

// putBack makes events that were taken and not run due again. Should it fail, they are due when the time for which they
// were taken is over.
func (c *consumer) putBack(ctx context.Context, due []parkedKey, after time.Duration) error {
	if len(due) == 0 {
		return nil
	}
	keys := make([]inbox.Key, len(due))
	for i, k := range due {
		keys[i] = inbox.Key{Source: k.source, ID: k.id}
	}
	return c.store.PutBack(ctx, c.cfg.Pool, keys, after)
}

func (c *consumer) wakeStranded(ctx context.Context) error {
	woken, err := c.store.WakeStranded(ctx, c.cfg.Pool)
	if err != nil {
		return err
	}
	if woken > 0 {
		c.cfg.Logger.Warn("parked events whose predecessors were deleted by hand are due again", keyConsumer, c.name, "count", woken)
		c.signal()
	}
	return nil
}
