package handlers

import (
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/listen"
)

// Listener has functions that are called when something happens to events, for metrics and tests. They are called
// synchronously, from many goroutines, and must be quick. A nil function is not called. A function that panics, or calls
// runtime.Goexit, is logged as an error and changes nothing else.
type Listener struct {
	// Received is called when the broker has delivered a message.
	Received func(ReceivedInfo)
	// Ran is called when the handlers of a transaction have run. The transaction commits next.
	Ran func(BatchInfo)
	// Committed is called when the transaction has committed. Its events are settled with the broker next.
	Committed func(BatchInfo)
	// Handled is called for each event whose handler ran in a transaction that has committed.
	Handled func(HandledInfo)
	// Skipped is called for each event that was settled without effect because the consumer has no handler for it, or
	// because it is older than the consumer's beginning.
	Skipped func(EventInfo)
	// Duplicate is called for each event that was delivered again after it was handled.
	Duplicate func(EventInfo)
	// Discarded is called for each event that was settled without effect because of its handler's error or a RetryRule.
	Discarded func(FailureInfo)
	// Gap is called once for each event that came before its predecessor and begins to wait.
	Gap func(GapInfo)
	// MissingRequested is called when the events that a parked event waits for were requested from their publisher, or
	// could not be (Err). It is called again while the gap lasts.
	MissingRequested func(MissingRequestedInfo)
	// Parked is called for each event that was parked, and for each parked one that is rescheduled.
	Parked func(ParkedInfo)
	// Retried is called before the handler of a parked event is called.
	Retried func(RetriedInfo)
	// Dead is called for each event that became a dead letter.
	Dead func(FailureInfo)
	// Panicked is called for each panic of a handler, before Parked or Dead is called with the *PanicError.
	Panicked func(PanickedInfo)
	// Unresponsive is called when a handler has ignored the end of its context and was abandoned.
	Unresponsive func(UnresponsiveInfo)
	// Paused is called once after the start, and whenever what is paused of a consumer has changed.
	Paused func(PausedInfo)
	// Stalled is called when Postgres can't be used, or the outbox accepts no events. The router tries again by itself.
	Stalled func(StalledInfo)
}

// EventInfo names an event and its consumer.
type EventInfo struct {
	Consumer string           // the name of the consumer
	Event    rocketflow.Event // as the consumer has received it
}

// ReceivedInfo is the argument of Listener.Received.
type ReceivedInfo struct {
	EventInfo
	Delivery int // the broker's count of the message's deliveries; the first is 1
}

// BatchInfo is the argument of Listener.Ran and Listener.Committed.
type BatchInfo struct {
	Consumer string             // the name of the consumer
	Events   []rocketflow.Event // those whose handlers ran, in this order
}

// HandledInfo is the argument of Listener.Handled.
type HandledInfo struct {
	EventInfo
	Attempt int           // the first is 1
	Took    time.Duration // the duration of the handler's call
	Batch   int           // how many events shared the transaction
	Latency time.Duration // from the recording of the event to the commit of its handler's transaction, by the clocks of two machines
}

// GapInfo is the argument of Listener.Gap.
type GapInfo struct {
	EventInfo
	Last int64 // the sequence of the last event of the stream that was handled; 0: none
}

// MissingRequestedInfo is the argument of Listener.MissingRequested.
type MissingRequestedInfo struct {
	Consumer string                   // the name of the consumer
	Gap      rocketflow.MissingEvents // the request
	Err      error                    // why it was not sent; nil: it was
}

// ParkedInfo is the argument of Listener.Parked.
type ParkedInfo struct {
	EventInfo
	Reason   Reason        // Retry, Gap, Busy, Unhandled or Paused
	Attempts int           // failed so far
	After    time.Duration // until the next attempt or check; negative: none is planned, another event or an operator wakes it
	Err      error         // nil for a gap
}

// RetriedInfo is the argument of Listener.Retried.
type RetriedInfo struct {
	EventInfo
	Attempt int // the first is 1
}

// FailureInfo is the argument of Listener.Dead and Listener.Discarded.
type FailureInfo struct {
	EventInfo
	Attempts int   // failed so far; 0 for Discarded
	Err      error // why the event is a dead letter, or was discarded
}

// UnresponsiveInfo is the argument of Listener.Unresponsive.
type UnresponsiveInfo struct {
	EventInfo
	Running time.Duration // since the handler was called
}

// PanickedInfo is the argument of Listener.Panicked.
type PanickedInfo struct {
	EventInfo
	Value any    // what the handler panicked with
	Stack []byte // of the goroutine that panicked
}

// PausedInfo is the argument of Listener.Paused.
type PausedInfo struct {
	Consumer string  // the name of the consumer
	Pauses   []Pause // all of the consumer; none: nothing is paused any more
}

// StalledInfo is the argument of Listener.Stalled.
type StalledInfo struct {
	Consumer string        // the name of the consumer
	Err      error         // why Postgres or the outbox can't be used
	After    time.Duration // until the next try
}

// withDefaults returns a Listener whose functions are not nil.
func (l *Listener) withDefaults() *Listener {
	var full Listener
	if l != nil {
		full = *l
	}
	listen.Default(&full.Received)
	listen.Default(&full.Ran)
	listen.Default(&full.Committed)
	listen.Default(&full.Handled)
	listen.Default(&full.Skipped)
	listen.Default(&full.Duplicate)
	listen.Default(&full.Discarded)
	listen.Default(&full.Gap)
	listen.Default(&full.MissingRequested)
	listen.Default(&full.Parked)
	listen.Default(&full.Retried)
	listen.Default(&full.Dead)
	listen.Default(&full.Panicked)
	listen.Default(&full.Unresponsive)
	listen.Default(&full.Paused)
	listen.Default(&full.Stalled)
	return &full
}

// guarded returns a Listener that calls the functions of l, if they are not nil, and reports their panics instead of passing
// them on.
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
	guard.Listen(r, "Listener.Paused", &own.Paused)
	guard.Listen(r, "Listener.Stalled", &own.Stalled)
	return own.withDefaults()
}

// Tee returns a Listener that calls all of the listeners in order. A nil one is left out.
func Tee(listeners ...*Listener) *Listener {
	var all Listener
	for _, l := range listeners {
		l = l.withDefaults()
		listen.Tee(&all.Received, l.Received)
		listen.Tee(&all.Ran, l.Ran)
		listen.Tee(&all.Committed, l.Committed)
		listen.Tee(&all.Handled, l.Handled)
		listen.Tee(&all.Skipped, l.Skipped)
		listen.Tee(&all.Duplicate, l.Duplicate)
		listen.Tee(&all.Discarded, l.Discarded)
		listen.Tee(&all.Gap, l.Gap)
		listen.Tee(&all.MissingRequested, l.MissingRequested)
		listen.Tee(&all.Parked, l.Parked)
		listen.Tee(&all.Retried, l.Retried)
		listen.Tee(&all.Dead, l.Dead)
		listen.Tee(&all.Panicked, l.Panicked)
		listen.Tee(&all.Unresponsive, l.Unresponsive)
		listen.Tee(&all.Paused, l.Paused)
		listen.Tee(&all.Stalled, l.Stalled)
	}
	return &all
}
