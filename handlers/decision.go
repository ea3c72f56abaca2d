package handlers

import (
	"time"

	"github.com/google/uuid"
	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/stored"
)

// decision is what a turn does with an event.
type decision int

const (
	undecided     decision = iota // the turn ended before it came to the event
	run                           // its handler runs
	stepOver                      // it is settled without a handler: none is recorded, or it is older than the consumer's beginning
	unhandled                     // it waits for a process that has its handler
	duplicate                     // it was handled before
	alreadyParked                 // it waits in Postgres
	behind                        // an earlier event of its stream waits in Postgres
	early                         // its predecessor was not handled
	failed                        // its handler failed in an earlier turn: it waits for its next attempt, or is a dead letter
	discarded                     // its handler failed in an earlier turn with an error that settles the event
	tooOld                        // nobody can tell whether it was handled: a dead letter
	tooLate                       // it was not handled, but its followers were: a dead letter
	tooFarAhead                   // its sequence lies in the future: a dead letter
	conflict                      // another content has its identity, or its place: a dead letter
	unreadable                    // the message is no event: a dead letter
)

// situation is what a turn knows of an event when it decides about it, under the locks of the event's stream.
type situation struct {
	event    rocketflow.Event
	position inbox.Position // of its stream, if it has an order
	forked   bool           // the stream went past parked events in this turn, so position is no longer known in full

	row     *inbox.Record // set: the event is parked and due; nil: the broker delivered it
	follows bool          // it is not the first of the parked events of the turn

	unreadable    bool         // the message is no event
	alreadyParked bool         // delivered, while its row waits in Postgres
	entry         *inbox.Entry // what the inbox says of it; nil: it was not read, or says nothing
	repeated      bool         // another copy of it runs in the same turn

	failure *outcome // set: its handler failed in an earlier turn, and this one records what follows
}

// conditions are what a decision depends on besides the situation.
type conditions struct {
	now               time.Time // by Postgres' clock
	maxAhead          time.Duration
	inboxRetention    time.Duration
	positionRetention time.Duration
	adoptAfter        time.Duration // how long an event waits for a predecessor that is older than the consumer
	begin             time.Time     // events recorded before are stepped over; zero: none
	born              time.Time     // when the consumer first read the topic
	handled           bool          // this process has a handler
	recorded          bool          // some process has one
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
	if s.follows && (d == early || d == tooOld || d == unhandled) {
		return undecided // it becomes due by itself, and is then the first of a turn
	}
	return d
}

// decideUnordered decides about an event without order.
func decideUnordered(s situation, r conditions) decision {
	e := s.event
	d := r.handler(e)
	switch {
	case !inbox.UsesInbox(e), d == stepOver, d == unhandled && s.entry == nil:
		return d
	case d == run && s.row == nil && r.expired(e):
		return tooOld
	case s.entry == nil && s.failure != nil:
		return run
	case s.entry == nil || !s.entry.Fresh:
		if s.entry != nil && s.entry.Digest != nil && *s.entry.Digest != 0 && *s.entry.Digest != stored.Digest(e) {
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

// decideParked decides about a parked event that is due, under the lock of its stream. waited is how long it has been
// parked.
func decideParked(e rocketflow.Event, reason inbox.Reason, at inbox.Position, r conditions, waited time.Duration) decision {
	switch {
	case r.beforeBeginning(e) && e.Sequence <= at.Last:
		return duplicate // it would have been stepped over
	case reason == inbox.Busy && e.Sequence <= at.Last && !at.PassedOver(e.Sequence):
		return duplicate // it was parked without a look at the position, which its stream's handler held
	case at.PassedOver(e.Sequence), e.Sequence <= at.Last:
		// It is parked, so it was not handled: nothing handles a parked event but the turn that takes it out.
		return tooLate
	case reason == inbox.Retry:
		return r.handler(e) // that its turn had come was decided before
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

// decideInTurn decides about an event before which nothing is parked.
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

// handler decides about an event whose turn has come.
func (r conditions) handler(e rocketflow.Event) decision {
	switch {
	case r.beforeBeginning(e):
		return stepOver
	case r.handled:
		return run
	case r.recorded:
		return unhandled
	}
	return stepOver
}

// beforeBeginning reports whether e was recorded before the consumer's beginning. A timeout is never: it belongs to the time
// at which it fires.
func (r conditions) beforeBeginning(e rocketflow.Event) bool {
	return e.TimeoutName == "" && e.Time.Before(r.begin) // a zero begin is before all
}

func (r conditions) tooFarAhead(e rocketflow.Event) bool {
	return e.Sequence > r.now.Add(r.maxAhead).UnixMicro()
}

// expired reports whether the inbox may have forgotten an event without order: it is kept by the day of the event's id.
func (r conditions) expired(e rocketflow.Event) bool {
	oldest := r.now.Add(-r.inboxRetention)
	return !e.Time.IsZero() && e.Time.Before(oldest) || e.ID.Version() == 7 && drawnAt(e.ID).Before(oldest)
}

// drawnAt returns when a UUIDv7 was drawn.
func drawnAt(id uuid.UUID) time.Time { return time.Unix(id.Time().UnixTime()) }

// adoptable reports whether an event's predecessor will never come: the stream is new here, and the predecessor is older than
// the consumer or than what positions remember.
func (r conditions) adoptable(e rocketflow.Event, last int64) bool {
	return last == 0 && (e.Previous < r.born.UnixMicro() || e.Previous < r.now.Add(-r.positionRetention).UnixMicro())
}

// passes reports whether e runs though an event with a lower sequence is parked: all that e is linked to has been handled,
// and the parked one waits for something else, which no longer exists if its publisher's database has lost commits in a
// failover. A parked one that may yet be adopted is waited for.
func passes(e rocketflow.Event, at inbox.Position, r conditions) bool {
	head := rocketflow.Event{Previous: at.HeadPrevious}
	return e.Previous <= at.Last && at.HeadPrevious > at.Last && !r.adoptable(head, at.Last)
}
