package handlers

import (
	"context"
	"time"

	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/lazytx"
)

const (
	// maxWait is how long findDue waits at most between two looks. Another process may park an event meanwhile, or an operator retry one.
	maxWait = 3 * time.Second
	minWait = 20 * time.Millisecond
	// strandedInterval is how often findDue looks for parked events whose predecessors were deleted by hand.
	strandedInterval = time.Minute
	// takenMargin is added to the handler's timeout for the time that an event waits for a lane.
	takenMargin = 10 * time.Second
	// busyRecheck is the time until a due event behind a slow handler is taken again.
	busyRecheck = 5 * time.Second
	// pausedRecheck is maxWait while something of the consumer is paused, so that a resume is noticed soon.
	pausedRecheck = 500 * time.Millisecond
)

// maxRetries is how many parked events the queue and the lanes may have at a time.
func (c *consumer) maxRetries() int { return 4 * c.opts.Lanes }

// findDue takes parked events that are due and gives them to the queue; the lanes run them between deliveries. It returns
// when stopping ends, but its statements end with ctx only: events that a cancelled statement took would wait until their
// claim expires.
func (c *consumer) findDue(stopping, ctx context.Context) {
	var checked time.Time
	var resumed resumption
	background.Loop{Clock: c.cfg.Clock, Wake: c.wake}.Run(stopping, func(context.Context) time.Duration {
		wait, err := c.takeDue(ctx, &resumed)
		if now := c.now(); err == nil && now.Sub(checked) > strandedInterval {
			checked = now
			err = c.wakeStranded(ctx)
		}
		switch {
		case err == nil:
			c.findStall.end()
		case ctx.Err() == nil:
			wait = time.Second
			c.findStall.begin(err, wait)
		}
		return wait
	})
}

// takeDue takes due events and returns how long to wait until the next look.
func (c *consumer) takeDue(ctx context.Context, resumed *resumption) (time.Duration, error) {
	free := c.maxRetries() - int(c.retries.Load())
	if free <= 0 && !c.queue.isPaused() {
		return maxWait, nil // a lane that is done with one signals earlier
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	now := c.now()
	found, err := c.store.TakeDue(ctx, lazytx.On(c.cfg.Pool), inbox.Look{
		Routes: c.routes(), Limit: max(free, 0), TakenFor: c.opts.Timeout + unresponsiveAfter + takenMargin, Longest: maxWait,
		Resumed: resumed.looks(now),
	})
	if err != nil {
		return 0, err
	}
	due := make([]parkedKey, len(found.Due))
	for i, d := range found.Due {
		due[i] = parkedKey{source: d.Stream.Source, id: d.ID, keyed: d.Sequence > 0 || d.Timeout, subject: d.Stream.Subject}
		if d.Sequence > 0 {
			due[i].stream = d.Stream
		}
	}
	if err := c.giveDue(ctx, due); err != nil {
		return 0, err
	}
	resumed.note(now, c.notePauses(found.Pauses), found.More, c.opts.Timeout+unresponsiveAfter+takenMargin)
	switch wait := found.Next; {
	case found.Pauses.All():
		return pausedRecheck, nil
	case free <= 0:
		return maxWait, nil
	case len(due) == 0: // the due events are locked by another process
		return min(max(wait, minWait), longestWait(found)), nil
	default:
		return min(wait, longestWait(found)), nil
	}
}

// giveDue gives due events to the queue. Those whose group has been busy for long are put back, as they would take the room of
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

// putBack makes events that were taken and not run due again. If it fails, they are due when their claim expires.
func (c *consumer) putBack(ctx context.Context, due []parkedKey, after time.Duration) error {
	if len(due) == 0 {
		return nil
	}
	keys := make([]inbox.Key, len(due))
	for i, k := range due {
		keys[i] = inbox.Key{Source: k.source, ID: k.id}
	}
	return c.store.PutBack(ctx, lazytx.On(c.cfg.Pool), keys, after)
}

func (c *consumer) wakeStranded(ctx context.Context) error {
	woken, err := c.store.WakeStranded(ctx, lazytx.On(c.cfg.Pool))
	if err != nil {
		return err
	}
	if woken > 0 {
		c.cfg.Logger.Warn("parked events whose predecessors were deleted by hand are due again", keyConsumer, c.name, "count", woken)
		c.signal()
	}
	return nil
}
