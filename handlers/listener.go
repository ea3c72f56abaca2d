package handlers

import (
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/guard"
)

// Listener is told what happens. Its functions are called synchronously, from many goroutines, and must be quick. A nil
// function is not called. One that panics, or calls runtime.Goexit, is logged as an error, and what it was told of goes on.
type Listener struct {
	// Received: a message came from the broker.
	Received func(ReceivedInfo)
	// Ran: the handlers of a transaction have run; it commits next.
	Ran func(BatchInfo)
	// Committed: the transaction has committed; its events are settled next.
	Committed func(BatchInfo)
	// Handled: an event has had its effect.
	Handled func(HandledInfo)
	// Skipped: an event was settled that the consumer has no handler for, or that is older than the consumer's beginning.
	Skipped func(EventInfo)
	// Duplicate: an event came again and was settled.
	Duplicate func(EventInfo)
	// Discarded: a handler returned Discard or rocketflow.ErrStale.
	Discarded func(FailureInfo)
	// Gap: an event came before its predecessor. Said once when it begins to wait.
	Gap func(GapInfo)
	// MissingRequested: the publisher was asked for what is missing before a parked event, or could not be (Err). Asked again while
	// the gap stands.
	MissingRequested func(MissingRequestedInfo)
	// Parked: an event, new or tried again, waits in Postgres.
	Parked func(ParkedInfo)
	// Retried: a parked event is tried.
	Retried func(RetriedInfo)
	// Dead: an event became a dead letter.
	Dead func(FailureInfo)
	// Panicked: a handler panicked; its error comes with Parked or Dead.
	Panicked func(PanickedInfo)
	// Unresponsive: a handler ignored that its context had ended, and was abandoned.
	Unresponsive func(UnresponsiveInfo)
	// Stalled: Postgres can't be used, or the outbox takes nothing; the router tries again by itself.
	Stalled func(StalledInfo)
}

// EventInfo names an event and its consumer.
type EventInfo struct {
	Consumer string
	Event    rocketflow.Event
}

// ReceivedInfo is what Listener.Received is told.
type ReceivedInfo struct {
	EventInfo
	Delivery int // how often the broker has delivered it, beginning with 1, as far as it knows
}

// BatchInfo is what Listener.Ran and Committed are told.
type BatchInfo struct {
	Consumer string
	Events   []rocketflow.Event // those whose handlers ran, in this order
}

// HandledInfo is what Listener.Handled is told.
type HandledInfo struct {
	EventInfo
	Attempt int           // beginning with 1
	Took    time.Duration // the handler's call
	Batch   int           // how many events shared the transaction
	Latency time.Duration // from the recording of the event to its commit here, by two clocks
}

// GapInfo is what Listener.Gap is told.
type GapInfo struct {
	EventInfo
	Last int64 // the sequence of the last event handled; 0: none
}

// MissingRequestedInfo is what Listener.MissingRequested is told.
type MissingRequestedInfo struct {
	Consumer string
	Gap      rocketflow.MissingEvents
	Err      error
}

// ParkedInfo is what Listener.Parked is told.
type ParkedInfo struct {
	EventInfo
	Reason   Reason        // Retry, Gap, Busy or Unhandled
	Attempts int           // failed so far
	After    time.Duration // until it is looked at again; negative: when what it waits behind is done
	Err      error         // nil for a gap
}

// RetriedInfo is what Listener.Retried is told.
type RetriedInfo struct {
	EventInfo
	Attempt int // beginning with 1
}

// FailureInfo is what Listener.Dead and Discarded are told.
type FailureInfo struct {
	EventInfo
	Attempts int
	Err      error
}

// UnresponsiveInfo is what Listener.Unresponsive is told.
type UnresponsiveInfo struct {
	EventInfo
	Running time.Duration
}

// PanickedInfo is what Listener.Panicked is told.
type PanickedInfo struct {
	EventInfo
	Value any
	Stack []byte
}

// StalledInfo is what Listener.Stalled is told.
type StalledInfo struct {
	Consumer string
	Err      error
	After    time.Duration // until the next try
}

// withDefaults fills in functions that do nothing.
func (l *Listener) withDefaults() *Listener {
	var full Listener
	if l != nil {
		full = *l
	}
	silence(&full.Received)
	silence(&full.Ran)
	silence(&full.Committed)
	silence(&full.Handled)
	silence(&full.Skipped)
	silence(&full.Duplicate)
	silence(&full.Discarded)
	silence(&full.Gap)
	silence(&full.MissingRequested)
	silence(&full.Parked)
	silence(&full.Retried)
	silence(&full.Dead)
	silence(&full.Panicked)
	silence(&full.Unresponsive)
	silence(&full.Stalled)
	return &full
}

// guarded returns a Listener with functions that do nothing for those that are missing, and of which none can end the
// goroutine that calls it.
func (l *Listener) guarded(r *guard.Reporter) *Listener {
	var own Listener
	if l != nil {
		own = *l
	}
	guard.Listen(r, "Listener.Received", &own.Received)
	guard.Listen(r, "Listener.Ran", &own.Ran)
	guard.Listen(r, "Listener.Committed", &own.Committed)
	guard.Listen(r, "Listener.Handled", &own.Handled)
	guard.Listen(r, "Listener.Skipped", &own.Skipped)
	guard.Listen(r, "Listener.Duplicate", &own.Duplicate)
	guard.Listen(r, "Listener.Discarded", &own.Discarded)
	guard.Listen(r, "Listener.Gap", &own.Gap)
	guard.Listen(r, "Listener.MissingRequested", &own.MissingRequested)
	guard.Listen(r, "Listener.Parked", &own.Parked)
	guard.Listen(r, "Listener.Retried", &own.Retried)
	guard.Listen(r, "Listener.Dead", &own.Dead)
	guard.Listen(r, "Listener.Panicked", &own.Panicked)
	guard.Listen(r, "Listener.Unresponsive", &own.Unresponsive)
	guard.Listen(r, "Listener.Stalled", &own.Stalled)
	return own.withDefaults()
}

// Tee returns a Listener that tells all of them, in order.
func Tee(listeners ...*Listener) *Listener {
	var all Listener
	for _, l := range listeners {
		l = l.withDefaults()
		tee(&all.Received, l.Received)
		tee(&all.Ran, l.Ran)
		tee(&all.Committed, l.Committed)
		tee(&all.Handled, l.Handled)
		tee(&all.Skipped, l.Skipped)
		tee(&all.Duplicate, l.Duplicate)
		tee(&all.Discarded, l.Discarded)
		tee(&all.Gap, l.Gap)
		tee(&all.MissingRequested, l.MissingRequested)
		tee(&all.Parked, l.Parked)
		tee(&all.Retried, l.Retried)
		tee(&all.Dead, l.Dead)
		tee(&all.Panicked, l.Panicked)
		tee(&all.Unresponsive, l.Unresponsive)
		tee(&all.Stalled, l.Stalled)
	}
	return &all
}

func silence[I any](fn *func(I)) {
	if *fn == nil {
		*fn = func(I) {}
	}
}

func tee[I any](all *func(I), fn func(I)) {
	first := *all
	if first == nil {
		*all = fn
		return
	}
	*all = func(i I) { first(i); fn(i) }
}
