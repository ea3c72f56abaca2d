package handlers

import (
	"cmp"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// Reason says why an event is parked.
type Reason string

// Why an event is parked.
const (
	Retry      Reason = "retry"     // it failed and will be tried again
	Gap        Reason = "gap"       // an event before it must be handled first
	Busy       Reason = "busy"      // the handler of its aggregate has been running for long
	Unhandled  Reason = "unhandled" // its handler is registered, but by no process that met it: see Retire
	DeadLetter Reason = "dead"      // it failed for good: a person decides
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

// record is a parked row as it is read, with how long it has been there by Postgres' clock.
type record struct {
	Parked
	waited time.Duration
}

// parking says how an event waits.
type parking struct {
	reason   Reason
	attempts int           // failed so far
	after    time.Duration // negative: until it is woken
	err      error
}

// untilWoken is the delay of what waits for another event, a handler or a person.
const untilWoken = time.Duration(-1)

func dead(err error) parking { return parking{reason: DeadLetter, after: untilWoken, err: err} }

const (
	firstRecheck = time.Second // of a gap; then doubled
	lastRecheck  = 30 * time.Second
)

// gapRecheck returns when to look at a gap again that has been parked for so long.
func gapRecheck(waited time.Duration) time.Duration {
	return min(max(waited, firstRecheck), lastRecheck)
}

// unplaced is an event whose place in its stream is gone, or was never right: without order it holds nobody.
func unplaced(e rocketflow.Event) rocketflow.Event {
	e.Sequence, e.Previous = 0, 0
	return e
}

const maxError = 4 << 10

// errorText is an error as a row keeps it.
func errorText(err error) string {
	if err == nil {
		return ""
	}
	return cut(clean(err.Error()), maxError)
}

// logText is an error as a log line has it: its text may be anybody's.
func logText(err error) string {
	if err == nil {
		return ""
	}
	return printable.Text(err.Error(), maxError)
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
