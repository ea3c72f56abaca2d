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
}

// Reason says why an event was ignored.
type Reason string

const (
	NoSaga       Reason = "no saga"       // none with the event's key
	NoKey        Reason = "no key"        // the event has no subject, or KeyBy gave none
	Finished     Reason = "finished"      // the saga is in a final state
	NoTransition Reason = "no transition" // for this event, from the present state
)

// IgnoredInfo is an event that had no effect on a saga.
type IgnoredInfo struct {
	Saga, Key string
	State     string // empty without a saga
	Type      string
	EventID   uuid.UUID
	Reason    Reason
}

// Listener hears what happens to sagas. A nil function hears nothing. They are called from many goroutines and should be
// quick. One that panics, or calls runtime.Goexit, is logged as an error, and what it was told of goes on.
type Listener struct {
	Moved   func(TransitionInfo) // after the commit
	Ignored func(IgnoredInfo)
	Expired func(sagas int) // deleted by retention
}

// guarded returns a listener of the application's functions that survives them.
func (l Listener) guarded(r *guard.Reporter) Listener {
	guard.Listen(r, "Listener.Moved", &l.Moved)
	guard.Listen(r, "Listener.Ignored", &l.Ignored)
	guard.Listen(r, "Listener.Expired", &l.Expired)
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
