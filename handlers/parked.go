package handlers

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/inbox"
)

// Reason says why an event is parked.
type Reason string

// The reasons why an event is parked.
const (
	// Retry is the reason of an event whose handler failed, or returned RetryAfter. It is tried again at a set time.
	Retry = Reason(inbox.Retry)
	// Gap is the reason of an event whose predecessor in its stream was not handled.
	Gap = Reason(inbox.Gap)
	// Busy is the reason of an event that was moved to Postgres because a handler was taking long with an earlier event of its
	// aggregate.
	Busy = Reason(inbox.Busy)
	// Unhandled is the reason of an event whose handler is recorded, but missing in the processes that received the event.
	Unhandled = Reason(inbox.Unhandled)
	// Paused is the reason of an event that came while an operator had paused its handler or its stream.
	Paused = Reason(inbox.Paused)
	// DeadLetter is the reason of an event that is not tried again: it waits for an operator.
	DeadLetter = Reason(inbox.DeadLetter)
)

const (
	firstRecheck = time.Second // wait before a parked gap is checked first; then doubled
	lastRecheck  = 30 * time.Second
)

// gapRecheck returns the wait before the next check of a gap that has been parked for the given time.
func gapRecheck(waited time.Duration) time.Duration {
	return min(max(waited, firstRecheck), lastRecheck)
}

// withoutOrder returns the event without order, so that it holds back no other. It is for an event whose place in its stream
// has been passed, or is wrong.
func withoutOrder(e rocketflow.Event) rocketflow.Event {
	e.Sequence, e.Previous = 0, 0
	return e
}

var errBusy = errors.New("the handler of its aggregate has been running for long")

// parkBusy parks an event behind a handler that takes long. That handler's transaction has locked the position, so it can't be
// read: the event becomes due by itself, and is decided about then.
func (c *consumer) parkBusy(ctx context.Context, it *item) error {
	e, p := it.event, inbox.Parking{Reason: inbox.Busy, After: firstRecheck, Err: errBusy}
	replace := func(why error) {
		it.cutDown(why)
		e, p = it.event, inbox.Dead(it.unreadable)
	}
	err := c.untilCommitted(ctx, replace, func(ctx context.Context, tx pgx.Tx) error {
		var q pgx.Batch
		if err := c.store.QueuePark(&q, e, p); err != nil {
			return err
		}
		return tx.SendBatch(ctx, &q).Close()
	})
	if err == nil {
		c.reportParked(e, p)
	}
	return err
}
