package handlers

import (
	"cmp"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// Reason says why an event is parked.
type Reason string

// Why an event is parked.
const (
	Retry      = Reason(inbox.Retry)      // it failed and will be tried again
	Gap        = Reason(inbox.Gap)        // an event before it must be handled first
	Busy       = Reason(inbox.Busy)       // the handler of its aggregate has been running for long
	Unhandled  = Reason(inbox.Unhandled)  // its handler is registered, but by no process that met it: see Retire
	DeadLetter = Reason(inbox.DeadLetter) // it failed for good: a person decides
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

// logText is an error as a log line has it: its text may be anybody's.
func logText(err error) string {
	if err == nil {
		return ""
	}
	return printable.Text(err.Error(), inbox.MaxError)
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
