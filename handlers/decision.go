package handlers

import (
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/inbox"
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
	tooOld                        // nobody can tell whether it was handled: a dead letter
	tooLate                       // it was not handled, but its followers were: a dead letter
	tooFarAhead                   // its sequence lies in the future: a dead letter
	conflict                      // another content has its identity, or its place: a dead letter
	unreadable                    // the message is no event: a dead letter
)

// rules are what a decision depends on besides event and position.
type rules struct {
	now               time.Time // by Postgres' clock
	maxAhead          time.Duration
	positionRetention time.Duration
	begin             time.Time // events recorded before are stepped over; zero: none
	born              time.Time // when the consumer first read the topic
	handled           bool      // this process has a handler
	recorded          bool      // some process has one
}

// decideDelivered decides about an ordered event that the broker delivered.
func decideDelivered(e rocketflow.Event, at inbox.Position, r rules) decision {
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
// parked, adoptAfter how long it has to wait for a predecessor that is older than the consumer.
func decideParked(e rocketflow.Event, reason inbox.Reason, at inbox.Position, r rules, waited, adoptAfter time.Duration) decision {
	switch {
	case r.beforeBeginning(e) && e.Sequence <= at.Last:
		return duplicate // it would have been stepped over
	case reason == inbox.Busy && e.Sequence <= at.Last && !at.PassedOver(e.Sequence):
		return duplicate // it was parked without a look at the inbox.Position, which its stream's handler held
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
	if waited < adoptAfter {
		return early
	}
	return r.handler(e)
}

// decideInTurn decides about an event before which nothing is parked.
func decideInTurn(e rocketflow.Event, at inbox.Position, r rules) decision {
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
func (r rules) handler(e rocketflow.Event) decision {
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

// beforeBeginning tells whether the consumer begins after e. A timeout is nothing of the past.
func (r rules) beforeBeginning(e rocketflow.Event) bool {
	return e.TimeoutName == "" && e.Time.Before(r.begin) // a zero begin is before all
}

func (r rules) tooFarAhead(e rocketflow.Event) bool {
	return e.Sequence > r.now.Add(r.maxAhead).UnixMicro()
}

// adoptable tells whether an event that has no predecessor here will never see it come.
func (r rules) adoptable(e rocketflow.Event, last int64) bool {
	return last == 0 && (e.Previous < r.born.UnixMicro() || e.Previous < r.now.Add(-r.positionRetention).UnixMicro())
}

// passes tells whether e runs though an event with a lower sequence is parked: all that e is linked to has been handled,
// and the parked one waits for something else, which no longer exists if its publisher's database has lost commits in a
// failover. A parked one that may yet be adopted is waited for.
func passes(e rocketflow.Event, at inbox.Position, r rules) bool {
	head := rocketflow.Event{Previous: at.HeadPrevious}
	return e.Previous <= at.Last && at.HeadPrevious > at.Last && !r.adoptable(head, at.Last)
}
