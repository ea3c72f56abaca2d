package saga

import (
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/listen"
)

// TransitionInfo describes a committed transition, or the beginning of a saga.
type TransitionInfo struct {
	// Saga and Key identify the saga.
	Saga, Key string
	// From is the state that the saga left. It is empty for the beginning.
	From string
	// To is the state that the saga entered.
	To string
	// Final reports whether To is final.
	Final bool
	// Deadline reports whether a deadline caused the transition.
	Deadline bool
	// CauseType is the type of the event that caused the transition, or "saga.begin" for Begin.
	CauseType string
	// CauseID is the id of that event. It is zero for Begin and Apply.
	CauseID uuid.UUID
	// Revision is the saga's revision after the transition.
	Revision int64
	// Age is the time since the saga began, by the clock of Postgres.
	Age time.Duration
	// Waited is how long the event waited for a state that accepts it. It is zero if it didn't wait.
	Waited time.Duration
}

// IgnoredReason is why an event had no effect on a saga.
type IgnoredReason string

// The reasons of IgnoredInfo.
const (
	// NoSaga: no saga has the event's key, and events of this type don't wait for one.
	NoSaga IgnoredReason = "no saga"
	// NoKey: the event has no subject, or KeyBy returned no key, or one that no saga can have.
	NoKey IgnoredReason = "no key"
	// Finished: the saga is in a final state.
	Finished IgnoredReason = "finished"
	// NoTransition: neither the saga's state nor one that can be reached from it has a transition for the event.
	NoTransition IgnoredReason = "no transition"
	// AlreadyBegun: the event begins sagas (StartOn), and the saga has begun.
	AlreadyBegun IgnoredReason = "already begun"
	// Discarded: the function of the transition settled a waiting event without an effect, as with handlers.Discard.
	Discarded IgnoredReason = "discarded"
)

// IgnoredInfo describes an event that had no effect on a saga.
type IgnoredInfo struct {
	// Saga and Key identify the saga.
	Saga, Key string
	// State is the state that the saga is in. It is empty if there is no saga.
	State string
	// Type and EventID are those of the event.
	Type    string
	EventID uuid.UUID
	// Reason is why the event had no effect.
	Reason IgnoredReason
}

// WaitInfo describes an event that waits for a saga.
type WaitInfo struct {
	// ID identifies the waiting event for operators.
	ID int64
	// Saga and Key identify the saga.
	Saga, Key string
	// State is the state that the saga is in. It is empty if the saga has not begun.
	State string
	// Type and EventID are those of the event.
	Type    string
	EventID uuid.UUID
	// ExpiresAt is when the wait ends. It is zero where it is not known.
	ExpiresAt time.Time
	// Attempts is the number of failed attempts to apply the event.
	Attempts int
	// Err is the error of the last attempt, or nil.
	Err error
}

// Listener observes sagas. A nil function is skipped. The functions are called from several goroutines at a time and must
// return quickly. A function that panics or calls runtime.Goexit is logged as an error and has no other effect.
type Listener struct {
	// Moved is called after a transition, or the beginning of a saga, committed.
	Moved func(TransitionInfo)
	// Ignored is called after the transaction of an event without an effect committed.
	Ignored func(IgnoredInfo)
	// Expired is called after retention deleted finished sagas, with their number.
	Expired func(sagas int)

	// Waiting is called after an event began to wait.
	Waiting func(WaitInfo)
	// WaitRetry is called after the function of a waiting event failed, if it is tried again.
	WaitRetry func(WaitInfo)
	// WaitFailed is called after the function of a waiting event failed for the last time. An operator has to retry or discard
	// the event.
	WaitFailed func(WaitInfo)
	// WaitExpired is called after the wait of an event ended without a state that accepts it. An operator has to retry or
	// discard the event.
	WaitExpired func(WaitInfo)
}

// guarded returns a copy whose functions can't panic or end the goroutine of their caller. l may be nil.
func (l *Listener) guarded(r *guard.Reporter) *Listener {
	var all Listener
	if l != nil {
		all = *l
	}
	guard.Listen(r, "Listener.Moved", &all.Moved)
	guard.Listen(r, "Listener.Ignored", &all.Ignored)
	guard.Listen(r, "Listener.Expired", &all.Expired)
	guard.Listen(r, "Listener.Waiting", &all.Waiting)
	guard.Listen(r, "Listener.WaitRetry", &all.WaitRetry)
	guard.Listen(r, "Listener.WaitFailed", &all.WaitFailed)
	guard.Listen(r, "Listener.WaitExpired", &all.WaitExpired)
	return &all
}

// Tee returns a Listener that calls the functions of all listeners, in order. Nil listeners are skipped.
func Tee(listeners ...*Listener) *Listener {
	var all Listener
	for _, l := range listeners {
		if l == nil {
			continue
		}
		listen.Tee(&all.Moved, l.Moved)
		listen.Tee(&all.Ignored, l.Ignored)
		listen.Tee(&all.Expired, l.Expired)
		listen.Tee(&all.Waiting, l.Waiting)
		listen.Tee(&all.WaitRetry, l.WaitRetry)
		listen.Tee(&all.WaitFailed, l.WaitFailed)
		listen.Tee(&all.WaitExpired, l.WaitExpired)
	}
	return &all
}
