package outbox

import (
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/listen"
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
	// Sent is called for each request that sent events, after Ended or Relayed were called for its events: a half message that
	// was committed, or a group of the relay.
	Sent func(SentInfo)
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
	From, To Path       // HalfMessages or Relay
	Reason   PathReason // why it has changed
}

// PreparedInfo is the argument of Listener.Prepared.
type PreparedInfo struct {
	Event rocketflow.Event // the event that the half message carries
	Took  time.Duration    // the duration of the request
	Err   error            // why the half message could not be stored; nil: it is stored
}

// EndedInfo is the argument of Listener.Ended.
type EndedInfo struct {
	Event rocketflow.Event // the event that the half message carries
	Took  time.Duration    // the duration of the request
	Err   error            // why the broker has not confirmed the commit; nil: it has
}

// RelayedInfo is the argument of Listener.Relayed.
type RelayedInfo struct {
	Event rocketflow.Event // the event that was sent, or could not be
	Swept bool             // the event was found by the sweep
	Group int              // how many events shared the request
	Took  time.Duration    // the duration of the request
	Err   error            // why the event could not be sent; nil: it was sent
}

// SentInfo is the argument of Listener.Sent.
type SentInfo struct {
	Events []rocketflow.Event // the events of the request
	Errs   []error            // of each event, in the same order; nil: all were sent
	Path   Path               // HalfMessages or Relay
	Swept  bool               // the sweep found the first of the events

	// When the request, or that of the half message, began; when the half message was stored, and when Postgres had committed,
	// on the half-message path; and when the broker's last response came. By the machine's clock.
	Began, Stored, Committed, Ended time.Time
}

// RejectedInfo is the argument of Listener.Rejected.
type RejectedInfo struct {
	Topic  string // the topic of the events
	Reason string // the broker's error for the last of the events
	Events int    // the number of events
}

// AckedInfo is the argument of Listener.Acked.
type AckedInfo struct {
	IDs  []uuid.UUID   // of the events
	Took time.Duration // the duration of the statement
	Err  error         // why the acknowledgements could not be written; nil: they are written
}

// CheckedInfo is the argument of Listener.Checked.
type CheckedInfo struct {
	EventID  uuid.UUID        // the id of the event that the half message carries
	Event    rocketflow.Event // as the half message has it, without Body; zero if it is unreadable
	Decision broker.Decision  // what the broker is told
	Reason   CheckReason      // why
	Times    int              // how often the broker says that it has checked back for this half message
	Err      error            // what prevented a decision, for CheckDatabaseError and CheckUnreadable
}

// SweptInfo is the argument of Listener.Swept.
type SweptInfo struct {
	Sent int           // owed events that were sent
	Left int           // owed events that were not sent, because they are too young or the broker is away; at most a page of them
	Took time.Duration // the duration of the pass
	Err  error         // why the pass ended early; nil: it is complete
}

// ResentInfo is the argument of Listener.Resent.
type ResentInfo struct {
	Requester string                   // the source that the request names
	Missing   rocketflow.MissingEvents // the request
	Sent      int                      // events sent again
	Gone      bool                     // the first of the missing events are no longer kept
	Refused   bool                     // a limit was reached, which Err names; nothing was looked up
	Err       error                    // why not all events were sent
}

// RetainedInfo is the argument of Listener.Retained.
type RetainedInfo struct {
	Made, Dropped []string // names of partitions
	Expired       int64    // deleted rows
	Err           error    // why the pass is not complete; nil: it is
}

// withDefaults returns a listener whose functions are not nil.
func (l *Listener) withDefaults() *Listener {
	f := Listener{}
	if l != nil {
		f = *l
	}
	listen.Default(&f.PathChanged)
	listen.Default(&f.BreakerChanged)
	listen.Default(&f.Recorded)
	listen.Default(&f.Prepared)
	listen.Default(&f.Committed)
	listen.Default(&f.Ended)
	listen.Default(&f.Relayed)
	listen.Default(&f.Sent)
	listen.Default(&f.Rejected)
	listen.Default(&f.RelayFull)
	listen.Default(&f.Acked)
	listen.Default(&f.Checked)
	listen.Default(&f.Discarded)
	listen.Default(&f.Swept)
	listen.Default(&f.Resent)
	listen.Default(&f.Retained)
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
	guard.Listen(r, "Listener.Sent", &g.Sent)
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

// Tee returns a listener that calls the functions of each of ls, in order. nil listeners are skipped.
func Tee(ls ...*Listener) *Listener {
	var all Listener
	for _, l := range ls {
		if l == nil {
			continue
		}
		listen.Tee(&all.PathChanged, l.PathChanged)
		listen.Tee(&all.BreakerChanged, l.BreakerChanged)
		listen.Tee(&all.Recorded, l.Recorded)
		listen.Tee(&all.Prepared, l.Prepared)
		listen.Tee(&all.Committed, l.Committed)
		listen.Tee(&all.Ended, l.Ended)
		listen.Tee(&all.Relayed, l.Relayed)
		listen.Tee(&all.Sent, l.Sent)
		listen.Tee(&all.Rejected, l.Rejected)
		listen.Tee(&all.RelayFull, l.RelayFull)
		listen.Tee(&all.Acked, l.Acked)
		listen.Tee(&all.Checked, l.Checked)
		listen.Tee(&all.Discarded, l.Discarded)
		listen.Tee(&all.Swept, l.Swept)
		listen.Tee(&all.Resent, l.Resent)
		listen.Tee(&all.Retained, l.Retained)
		switch first, next := all.RolledBack, l.RolledBack; {
		case first == nil:
			all.RolledBack = next
		case next != nil:
			all.RolledBack = func(events []rocketflow.Event, unknown bool) {
				first(events, unknown)
				next(events, unknown)
			}
		}
	}
	return all.withDefaults()
}
