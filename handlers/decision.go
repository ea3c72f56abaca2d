package handlers

import (
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/stored"
)

// decision is what a turn does with an event.
type decision int

const (
	undecided     decision = iota // the turn ended before it came to the event
	run                           // call its handler
	skip                          // settle it without a handler: none is recorded, or it is older than the consumer's beginning
	unhandled                     // park it for a process that has its handler
	paused                        // park it until its handler or its stream is resumed
	duplicate                     // settle it: it was handled before
	alreadyParked                 // settle the delivery: the event is parked
	behind                        // park it: an earlier event of its stream is parked
	early                         // let it wait: its predecessor was not handled
	failed                        // park it: its handler failed in an earlier turn
	discarded                     // settle it: its handler failed in an earlier turn with an error that discards it
	tooOld                        // dead letter: the inbox no longer has whether it was handled
	tooLate                       // dead letter: it was not handled, but its followers were
	tooFarAhead                   // dead letter: its sequence lies in the future
	conflict                      // dead letter: another event with other content has its identity or its place
	unreadable                    // dead letter: the message is no event
)

// situation is the state of an event that a decision depends on, read under the lock of the event's stream.
type situation struct {
	event    rocketflow.Event
	position inbox.Position // of its stream, if it has an order
	forked   bool           // the stream went past parked events in this turn, so position must be read anew

	row     *inbox.Record // set: the event is parked and due; nil: the broker delivered it
	follows bool          // it is not the first of the parked events of the turn

	unreadable    bool         // the message is no event
	alreadyParked bool         // delivered, while its row waits in Postgres
	entry         *inbox.Entry // the event's row in the inbox; nil: it has none, or it was not read
	repeated      bool         // another copy of it runs in the same turn

	failure *outcome // set: its handler failed in an earlier turn, and this turn records the outcome
}

// conditions are the settings and times that a decision depends on besides the situation.
type conditions struct {
	now               time.Time // by Postgres' clock
	maxAhead          time.Duration
	inboxRetention    time.Duration
	positionRetention time.Duration
	adoptAfter        time.Duration // how long an event waits for a predecessor that is older than the consumer
	begin             time.Time     // events recorded before are skipped; zero: none
	born              time.Time     // when the consumer first read the topic
	handled           bool          // this process has a handler
	recorded          bool          // some process has one
	paused            bool          // an operator has paused the handler or the stream
}

// decide decides about an event. It is a pure function.
func decide(s situation, r conditions) decision {
	d := decideWaiting(s, r)
	if d != run || s.failure == nil {
		return d
	}
	if s.failure.action == ActionDiscard {
		return discarded
	}
	return failed
}

// decideWaiting decides about an event whose handler has not failed.
func decideWaiting(s situation, r conditions) decision {
	e := s.event
	switch {
	case s.unreadable && s.alreadyParked:
		return alreadyParked
	case s.unreadable:
		return unreadable
	case s.forked:
		return undecided
	case s.row == nil && s.alreadyParked:
		return alreadyParked
	case !e.Ordered():
		return decideUnordered(s, r)
	case s.row == nil:
		return decideDelivered(e, s.position, r)
	}
	d := decideParked(e, s.row.Reason, s.position, r, s.row.Waited)
	if s.follows && (d == early || d == tooOld || d == unhandled || d == paused) {
		return undecided // it becomes due by itself, and is then the first of a turn
	}
	return d
}

// decideUnordered decides about an event without order.
func decideUnordered(s situation, r conditions) decision {
	e := s.event
	d := r.handler(e)
	switch {
	case !inbox.UsesInbox(e), d == skip, (d == unhandled || d == paused && !r.handled) && s.entry == nil:
		return d
	case (d == run || d == paused) && s.row == nil && r.expired(e):
		return tooOld
	case s.entry == nil && s.failure != nil:
		return run
	case s.entry == nil || !s.entry.Fresh:
		edited := s.row != nil && s.row.Edited // then another copy has other content
		if !edited && s.entry != nil && s.entry.Digest != nil && *s.entry.Digest != 0 && *s.entry.Digest != stored.Digest(e) {
			return conflict
		}
		return duplicate
	case s.repeated:
		return duplicate
	}
	return d
}

// decideDelivered decides about an ordered event that the broker delivered.
func decideDelivered(e rocketflow.Event, at inbox.Position, r conditions) decision {
	switch {
	case at.PassedOver(e.Sequence) && !r.beforeBeginning(e):
		return tooLate
	case e.Sequence <= at.Last:
		return duplicate
	case r.tooFarAhead(e):
		return tooFarAhead
	case at.Head == e.Sequence && at.HeadID != e.ID.String():
		return conflict
	case at.Head == e.Sequence:
		return alreadyParked
	case at.Head != 0 && e.Sequence > at.Head && !passes(e, at, r):
		return behind
	}
	return decideInTurn(e, at, r)
}

// decideParked decides about a parked event that is due. waited is how long it has been parked.
func decideParked(e rocketflow.Event, reason inbox.Reason, at inbox.Position, r conditions, waited time.Duration) decision {
	switch {
	case r.beforeBeginning(e) && e.Sequence <= at.Last:
		return duplicate // it would have been skipped
	case reason == inbox.Busy && e.Sequence <= at.Last && !at.PassedOver(e.Sequence):
		return duplicate // it was parked without reading the position, which a running handler had locked
	case at.PassedOver(e.Sequence), e.Sequence <= at.Last:
		// It is parked, so it was not handled: only the turn that takes its row handles a parked event.
		return tooLate
	case reason == inbox.Retry, reason == inbox.Paused:
		return r.handler(e) // an earlier turn decided that its predecessors were handled
	}
	d := decideInTurn(e, at, r)
	if d == early && !r.adoptable(e, at.Last) || d != early && d != tooOld {
		return d
	}
	if waited < r.adoptAfter {
		return early
	}
	return r.handler(e)
}

// decideInTurn decides about an event of a stream in which no earlier event is parked.
func decideInTurn(e rocketflow.Event, at inbox.Position, r conditions) decision {
	switch {
	case at.Last > 0 && e.Previous <= at.Last:
		return r.handler(e)
	case at.Last > 0:
		return early
	case e.Sequence < r.now.Add(-r.positionRetention).UnixMicro():
		return tooOld
	case e.Previous == 0, e.Previous < r.begin.UnixMicro():
		return r.handler(e)
	}
	return early
}

// handler decides about an event whose predecessors were handled: whether this process has its handler.
func (r conditions) handler(e rocketflow.Event) decision {
	switch {
	case r.beforeBeginning(e):
		return skip
	case !r.handled && !r.recorded:
		return skip
	case r.paused:
		return paused
	case r.handled:
		return run
	}
	return unhandled
}

// beforeBeginning reports whether e was recorded before the consumer's beginning. It is false for the event of a timeout,
// whose time is when it fires.
func (r conditions) beforeBeginning(e rocketflow.Event) bool {
	return e.TimeoutName == "" && e.Time.Before(r.begin) // no time is before a zero begin
}

func (r conditions) tooFarAhead(e rocketflow.Event) bool {
	return e.Sequence > r.now.Add(r.maxAhead).UnixMicro()
}

// expired reports whether the inbox may no longer have the row of an event without order. Its partitions go by the day of
// the event's id.
func (r conditions) expired(e rocketflow.Event) bool {
	oldest := r.now.Add(-r.inboxRetention)
	return !e.Time.IsZero() && e.Time.Before(oldest) || e.ID.Version() == 7 && clock.TimeOf(e.ID).Before(oldest)
}

// adoptable reports whether an event can be handled without its predecessor, because that will never come: the consumer has
// no position in the stream, and the predecessor is older than the consumer or than the retention of positions.
func (r conditions) adoptable(e rocketflow.Event, last int64) bool {
	return last == 0 && (e.Previous < r.born.UnixMicro() || e.Previous < r.now.Add(-r.positionRetention).UnixMicro())
}

// passes reports whether e runs although an event with a lower sequence is parked: e's predecessor was handled, and the
// parked one waits for another predecessor, which no longer exists if its publisher's database has lost commits in a
// failover. A parked one that may still be adopted is waited for.
func passes(e rocketflow.Event, at inbox.Position, r conditions) bool {
	head := rocketflow.Event{Previous: at.HeadPrevious}
	return e.Previous <= at.Last && at.HeadPrevious > at.Last && !r.adoptable(head, at.Last)
}
