package handlers

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/inbox"
)

// Reason says why an event is parked.
type Reason string

// Why an event is parked.
const (
	// Retry is the reason of an event whose handler failed, or requested it again later. It is tried again at its time.
	Retry = Reason(inbox.Retry)
	// Gap is the reason of an event before which another of its stream must be handled.
	Gap = Reason(inbox.Gap)
	// Busy is the reason of an event that was moved to Postgres because the handler of its aggregate was running for long.
	Busy = Reason(inbox.Busy)
	// Unhandled is the reason of an event whose handler is registered, but missing in the processes that met it.
	Unhandled = Reason(inbox.Unhandled)
	// DeadLetter is the reason of an event that failed for good: an operator decides.
	DeadLetter = Reason(inbox.DeadLetter)
)

// Parked is an event that waits in Postgres, or a dead letter.
type Parked struct {
	Consumer  string
	Event     rocketflow.Event
	Reason    Reason
	Attempts  int       // failed so far
	NextAt    time.Time // when it is looked at again; zero: not before what it waits for is there
	LastError string
	ParkedAt  time.Time
}

// parkedOf returns what an operator sees of a row.
func parkedOf(r *inbox.Record) Parked {
	return Parked{
		Consumer: r.Consumer, Event: r.Event, Reason: Reason(r.Reason), Attempts: r.Attempts,
		NextAt: r.NextAt, LastError: r.LastError, ParkedAt: r.ParkedAt,
	}
}

const (
	firstRecheck = time.Second // of a gap; then doubled
	lastRecheck  = 30 * time.Second
)

// gapRecheck returns when to look at a gap again that has been parked for so long.
func gapRecheck(waited time.Duration) time.Duration {
	return min(max(waited, firstRecheck), lastRecheck)
}

// withoutPlace returns an event whose place in its stream is gone, or was never right: without order it holds no other.
func withoutPlace(e rocketflow.Event) rocketflow.Event {
	e.Sequence, e.Previous = 0, 0
	return e
}

var errBusy = errors.New("the handler of its aggregate has been running for long")

// parkBusy parks an event behind a handler that takes long. That handler's transaction holds the position, so nothing is
// known of it: the event is looked at again by itself, and what it finds then decides.
func (c *consumer) parkBusy(ctx context.Context, e rocketflow.Event) error {
	p := inbox.Parking{Reason: inbox.Busy, After: firstRecheck, Err: errBusy}
	err := c.untilCommitted(ctx, func(ctx context.Context, tx pgx.Tx) error {
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

func compareEvents(x, y rocketflow.Event) int {
	if !x.Ordered() || !y.Ordered() {
		return cmp.Compare(b2i(!x.Ordered()), b2i(!y.Ordered()))
	}
	return cmp.Or(
		cmp.Compare(x.Source, y.Source), cmp.Compare(x.Topic, y.Topic), cmp.Compare(x.Subject, y.Subject),
		cmp.Compare(x.Sequence, y.Sequence))
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
