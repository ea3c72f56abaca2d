package outbox

import (
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/guard"
)

// Listener has functions that are called when something happens to events, for metrics and tests. Any of them may be nil.
// They are called synchronously, from many goroutines, some while a transaction is open: they must be quick and must not
// block. If one panics or calls runtime.Goexit, that is logged as an error and changes nothing else.
type Listener struct {
	// PathChanged is called when most transactions of this process take another path than before.
	PathChanged func(PathInfo)
	// BreakerChanged is called when the circuit breaker opens, because the broker has failed or was late too often, and when
	// it closes. While it is open no transaction waits for the broker, except for a few that probe it. It is called before
	// PathChanged.
	BreakerChanged func(open bool)
	// Recorded is called when the rows of events are inserted. Their transaction is still open, or, if rows and commit are
	// one round trip, it has just committed.
	Recorded func(events []rocketflow.Event)
	// Prepared is called when a half message is stored, or could not be (Err); then the relay will send the event.
	Prepared func(PreparedInfo)
	// Committed is called when Postgres has confirmed a commit. Its events are not sent yet, unless as half messages.
	Committed func(events []rocketflow.Event)
	// RolledBack is called for recorded events whose commit failed. unknown reports that they may be committed all the same,
	// now or later.
	RolledBack func(events []rocketflow.Event, unknown bool)
	// Ended is called when the broker has confirmed the commit of a half message, or has not (Err); then the relay will send
	// the event.
	Ended func(EndedInfo)
	// Relayed is called when the relay has sent an event, or could not (Err); then it stays owed.
	Relayed func(RelayedInfo)
	// Rejected is called when the rejection of events of a topic is recorded. They stay owed.
	Rejected func(RejectedInfo)
	// RelayFull is called for an event that has no room in the relay's memory. It is read back from Postgres when there is
	// room, or found by the sweep.
	RelayFull func(event rocketflow.Event)
	// Acked is called when acknowledgements are written, or could not be (Err); then the events will be sent again.
	Acked func(AckedInfo)
	// Checked is called when a check-back was decided.
	Checked func(CheckedInfo)
	// Discarded is called when the broker gave up a half message, because no process responded to its check-backs. The sweep
	// sends its event if the transaction committed.
	Discarded func(DiscardedInfo)
	// Swept is called when a pass of the sweep ended. It is not called for passes of other processes.
	Swept func(SweptInfo)
	// Resent is called when events were sent again for a missing-events request of a consumer, or the request was refused.
	Resent func(ResentInfo)
	// Retained is called when retention has made or dropped partitions or deleted rows, or failed (Err).
	Retained func(RetainedInfo)
}

// PathInfo is the argument of Listener.PathChanged.
type PathInfo struct {
	From, To Path
	Reason   PathReason
}

// PreparedInfo is the argument of Listener.Prepared.
type PreparedInfo struct {
	Event rocketflow.Event
	Took  time.Duration
	Err   error
}

// EndedInfo is the argument of Listener.Ended.
type EndedInfo struct {
	Event rocketflow.Event
	Took  time.Duration
	Err   error
}

// RelayedInfo is the argument of Listener.Relayed.
type RelayedInfo struct {
	Event rocketflow.Event
	Swept bool // the event was found by the sweep
	Group int  // how many events shared the request
	Took  time.Duration
	Err   error
}

// RejectedInfo is the argument of Listener.Rejected.
type RejectedInfo struct {
	Topic  string
	Reason string // the broker's error for the last of the events
	Events int
}

// AckedInfo is the argument of Listener.Acked.
type AckedInfo struct {
	IDs  []uuid.UUID
	Took time.Duration
	Err  error
}

// CheckedInfo is the argument of Listener.Checked.
type CheckedInfo struct {
	EventID  uuid.UUID
	Decision broker.Decision
	Reason   CheckReason
	Times    int // how often the broker says that it has checked back for this half message
	Err      error
}

// SweptInfo is the argument of Listener.Swept.
type SweptInfo struct {
	Sent int // owed events that were sent
	Left int // owed events that were not sent, because they are too young or the broker is away; at most a page of them
	Took time.Duration
	Err  error
}

// ResentInfo is the argument of Listener.Resent.
type ResentInfo struct {
	Requester string // the source that the request names
	Missing   rocketflow.MissingEvents
	Sent      int   // events sent again
	Gone      bool  // the first of the missing events are no longer kept
	Refused   bool  // a limit was reached, which Err names; nothing was looked up
	Err       error // why not all events were sent
}

// RetainedInfo is the argument of Listener.Retained.
type RetainedInfo struct {
	Made, Dropped []string // names of partitions
	Expired       int64    // deleted rows
	Err           error
}

// withDefaults returns a listener whose functions are not nil.
func (l *Listener) withDefaults() *Listener {
	f := Listener{}
	if l != nil {
		f = *l
	}
	setDefault(&f.PathChanged, func(PathInfo) {})
	setDefault(&f.BreakerChanged, func(bool) {})
	setDefault(&f.Recorded, func([]rocketflow.Event) {})
	setDefault(&f.Prepared, func(PreparedInfo) {})
	setDefault(&f.Committed, func([]rocketflow.Event) {})
	setDefault(&f.Ended, func(EndedInfo) {})
	setDefault(&f.Relayed, func(RelayedInfo) {})
	setDefault(&f.Rejected, func(RejectedInfo) {})
	setDefault(&f.RelayFull, func(rocketflow.Event) {})
	setDefault(&f.Acked, func(AckedInfo) {})
	setDefault(&f.Checked, func(CheckedInfo) {})
	setDefault(&f.Discarded, func(DiscardedInfo) {})
	setDefault(&f.Swept, func(SweptInfo) {})
	setDefault(&f.Resent, func(ResentInfo) {})
	setDefault(&f.Retained, func(RetainedInfo) {})
	if f.RolledBack == nil {
		f.RolledBack = func([]rocketflow.Event, bool) {}
	}
	return &f
}

// guarded returns a listener that calls the functions of l and reports their panics instead of passing them on.
func (l *Listener) guarded(r *guard.Reporter) *Listener {
	if l == nil {
		return nil
	}
	g := *l
	guard.Listen(r, "Listener.PathChanged", &g.PathChanged)
	guard.Listen(r, "Listener.BreakerChanged", &g.BreakerChanged)
	guard.Listen(r, "Listener.Recorded", &g.Recorded)
	guard.Listen(r, "Listener.Prepared", &g.Prepared)
	guard.Listen(r, "Listener.Committed", &g.Committed)
	guard.Listen(r, "Listener.Ended", &g.Ended)
	guard.Listen(r, "Listener.Relayed", &g.Relayed)
	guard.Listen(r, "Listener.RelayFull", &g.RelayFull)
	guard.Listen(r, "Listener.Rejected", &g.Rejected)
	guard.Listen(r, "Listener.Acked", &g.Acked)
	guard.Listen(r, "Listener.Checked", &g.Checked)
	guard.Listen(r, "Listener.Discarded", &g.Discarded)
	guard.Listen(r, "Listener.Swept", &g.Swept)
	guard.Listen(r, "Listener.Resent", &g.Resent)
	guard.Listen(r, "Listener.Retained", &g.Retained)
	if rolledBack := g.RolledBack; rolledBack != nil {
		g.RolledBack = func(events []rocketflow.Event, unknown bool) {
			r.Report("Listener.RolledBack", guard.Run(func() { rolledBack(events, unknown) }))
		}
	}
	return &g
}

// setDefault sets *f to noop if it is nil.
func setDefault[A any](f *func(A), noop func(A)) {
	if *f == nil {
		*f = noop
	}
}

// Tee returns a listener that calls the functions of each of ls, in order. nil listeners are skipped.
func Tee(ls ...*Listener) *Listener {
	var all []*Listener
	for _, l := range ls {
		all = append(all, l.withDefaults())
	}
	return &Listener{
		PathChanged:    tee(all, func(l *Listener) func(PathInfo) { return l.PathChanged }),
		BreakerChanged: tee(all, func(l *Listener) func(bool) { return l.BreakerChanged }),
		Recorded:       tee(all, func(l *Listener) func([]rocketflow.Event) { return l.Recorded }),
		Prepared:       tee(all, func(l *Listener) func(PreparedInfo) { return l.Prepared }),
		Committed:      tee(all, func(l *Listener) func([]rocketflow.Event) { return l.Committed }),
		RolledBack: func(events []rocketflow.Event, unknown bool) {
			for _, l := range all {
				l.RolledBack(events, unknown)
			}
		},
		Ended:     tee(all, func(l *Listener) func(EndedInfo) { return l.Ended }),
		Relayed:   tee(all, func(l *Listener) func(RelayedInfo) { return l.Relayed }),
		Rejected:  tee(all, func(l *Listener) func(RejectedInfo) { return l.Rejected }),
		RelayFull: tee(all, func(l *Listener) func(rocketflow.Event) { return l.RelayFull }),
		Acked:     tee(all, func(l *Listener) func(AckedInfo) { return l.Acked }),
		Checked:   tee(all, func(l *Listener) func(CheckedInfo) { return l.Checked }),
		Discarded: tee(all, func(l *Listener) func(DiscardedInfo) { return l.Discarded }),
		Swept:     tee(all, func(l *Listener) func(SweptInfo) { return l.Swept }),
		Resent:    tee(all, func(l *Listener) func(ResentInfo) { return l.Resent }),
		Retained:  tee(all, func(l *Listener) func(RetainedInfo) { return l.Retained }),
	}
}

// tee returns a function that calls one function of each listener.
func tee[A any](all []*Listener, pick func(*Listener) func(A)) func(A) {
	return func(a A) {
		for _, l := range all {
			pick(l)(a)
		}
	}
}
