package saga

import (
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/internal/guard"
)

// TransitionInfo is a committed transition. From is empty for the beginning.
type TransitionInfo struct {
	Saga, Key string
	From, To  string
	Final     bool
	Deadline  bool // a deadline caused it
	CauseType string
	CauseID   uuid.UUID     // zero for what the application did itself
	Revision  int64         // after it
	Age       time.Duration // since the beginning, by Postgres' clock
	Waited    time.Duration // how long the event waited for a state that takes it; zero: it didn't
}

// Reason says why an event was ignored.
type Reason string

const (
	NoSaga       Reason = "no saga"       // none with the event's key, for which events of its type don't wait
	NoKey        Reason = "no key"        // the event has no subject, or KeyBy gave none, or one that no saga can have
	Finished     Reason = "finished"      // the saga is in a final state
	NoTransition Reason = "no transition" // for this event, from the present state or one that can be reached from it
	AlreadyBegun Reason = "already begun" // an event of StartOn for a saga that has begun
	Discarded    Reason = "discarded"     // a waiting event that the transition's function settled without effect
)

// IgnoredInfo is an event that had no effect on a saga.
type IgnoredInfo struct {
	Saga, Key string
	State     string // empty without a saga
	Type      string
	EventID   uuid.UUID
	Reason    Reason
}

// WaitInfo is an event that waits for a saga.
type WaitInfo struct {
	ID        int64 // of the waiting event, for operate.WaitingFilter
	Saga, Key string
	State     string // of the saga; empty: it has not begun
	Type      string
	EventID   uuid.UUID
	ExpiresAt time.Time // zero where nothing is known of it
	Attempts  int       // failed ones
	Err       error     // of the last attempt, or nil
}

// Listener hears what happens to sagas. A nil function hears nothing. They are called from many goroutines and should be
// quick. One that panics, or calls runtime.Goexit, is logged as an error, and what it was told of goes on.
type Listener struct {
	Moved   func(TransitionInfo)
	Ignored func(IgnoredInfo)
	Expired func(sagas int) // deleted by retention

	Waiting     func(WaitInfo) // an event began to wait
	WaitRetry   func(WaitInfo) // its function failed and will be tried again
	WaitFailed  func(WaitInfo) // its function failed and will not be tried again: a person decides
	WaitExpired func(WaitInfo) // no state took it in time: a person decides
}

func tell(fn func(WaitInfo), i WaitInfo) {
	if fn != nil {
		fn(i)
	}
}

// guarded returns a listener of the application's functions that survives them.
func (l Listener) guarded(r *guard.Reporter) Listener {
	guard.Listen(r, "Listener.Moved", &l.Moved)
	guard.Listen(r, "Listener.Ignored", &l.Ignored)
	guard.Listen(r, "Listener.Expired", &l.Expired)
	guard.Listen(r, "Listener.Waiting", &l.Waiting)
	guard.Listen(r, "Listener.WaitRetry", &l.WaitRetry)
	guard.Listen(r, "Listener.WaitFailed", &l.WaitFailed)
	guard.Listen(r, "Listener.WaitExpired", &l.WaitExpired)
	return l
}

// Tee returns a Listener that tells all of them, in order.
func Tee(listeners ...*Listener) *Listener {
	var all Listener
	for _, l := range listeners {
		if l == nil {
			continue
		}
		tee(&all.Moved, l.Moved)
		tee(&all.Ignored, l.Ignored)
		tee(&all.Expired, l.Expired)
		tee(&all.Waiting, l.Waiting)
		tee(&all.WaitRetry, l.WaitRetry)
		tee(&all.WaitFailed, l.WaitFailed)
		tee(&all.WaitExpired, l.WaitExpired)
	}
	return &all
}

func tee[I any](all *func(I), fn func(I)) {
	first := *all
	switch {
	case first == nil:
		*all = fn
	case fn != nil:
		*all = func(i I) { first(i); fn(i) }
	}
}
