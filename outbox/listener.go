package outbox

import (
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/guard"
)

// Listener is told what happens to events on their way out. Any func may be nil. They are called synchronously, from
// many goroutines, some while a transaction is open: they must be quick and must not block. One that panics, or calls
// runtime.Goexit, is logged as an error, and what it was told of goes on.
type Listener struct {
	// PathChanged: most transactions of this process take another gear now.
	PathChanged func(PathInfo)
	// BreakerChanged: the broker failed or was late so often that no transaction waits for it now, but for a probe now
	// and then; or it answers again. It is told before PathChanged is told why.
	BreakerChanged func(open bool)
	// Recorded: the rows of a transaction are inserted; it is still open, or, where they are inserted together with its
	// commit, it has just committed.
	Recorded func(events []rocketflow.Event)
	// Prepared: a half message is stored, or could not be (Err; the relay will send the event).
	Prepared func(PreparedInfo)
	// Committed: Postgres confirmed the commit. Nothing of it is sent yet, unless as half messages.
	Committed func(events []rocketflow.Event)
	// RolledBack: the transaction is not, or perhaps not, committed. Unknown is true when Postgres' answer was lost.
	RolledBack func(events []rocketflow.Event, unknown bool)
	// Ended: the broker answered the commit of a half message, or did not (Err; the relay will send the event).
	Ended func(EndedInfo)
	// Relayed: the relay sent an event, or could not (Err; it stays owed).
	Relayed func(RelayedInfo)
	// Rejected: the broker rejected events of a topic, which is noted; they stay owed.
	Rejected func(RejectedInfo)
	// RelayFull: the relay's memory is full; the event is read back from Postgres when there is room, or found by the sweep.
	RelayFull func(event rocketflow.Event)
	// Acked: what the broker has is written down, or could not be (Err; it will be sent again).
	Acked func(AckedInfo)
	// Checked: the broker asked what became of a half message.
	Checked func(CheckedInfo)
	// Discarded: the broker gave up a half message, as nobody answered its checks. Its event is sent by the sweep.
	Discarded func(DiscardedInfo)
	// Swept: a pass over what is owed ended. It is not called for passes that another process makes.
	Swept func(SweptInfo)
	// Resent: a consumer that misses events was answered.
	Resent func(ResentInfo)
	// Retained: partitions were made or dropped, old rows deleted, or could not be.
	Retained func(RetainedInfo)
}

// PathInfo is what Listener.PathChanged gets.
type PathInfo struct {
	From, To Path
	Reason   PathReason
}

// PreparedInfo is what Listener.Prepared gets.
type PreparedInfo struct {
	Event rocketflow.Event
	Took  time.Duration
	Err   error
}

// EndedInfo is what Listener.Ended gets.
type EndedInfo struct {
	Event rocketflow.Event
	Took  time.Duration
	Err   error
}

// RelayedInfo is what Listener.Relayed gets.
type RelayedInfo struct {
	Event rocketflow.Event
	Swept bool // found by the sweep
	Group int  // how many events shared the request
	Took  time.Duration
	Err   error
}

// RejectedInfo is what Listener.Rejected gets.
type RejectedInfo struct {
	Topic  string
	Reason string // of the last of them, in the broker's words
	Events int
}

// AckedInfo is what Listener.Acked gets.
type AckedInfo struct {
	IDs  []uuid.UUID
	Took time.Duration
	Err  error
}

// CheckedInfo is what Listener.Checked gets.
type CheckedInfo struct {
	EventID  uuid.UUID
	Decision broker.Decision
	Reason   string // in words, for people
	Times    int    // how often the broker has asked, as far as it says
	Err      error
}

// SweptInfo is what Listener.Swept gets.
type SweptInfo struct {
	Sent int // events found owed and sent
	Left int // events found owed and not sent: too young, or the broker is away; at most a page of them is counted
	Took time.Duration
	Err  error
}

// ResentInfo is what Listener.Resent gets.
type ResentInfo struct {
	Requester string // the source that the request names
	Missing   rocketflow.MissingEvents
	Sent      int   // events sent again
	Gone      bool  // the first of those missed are no longer kept
	Refused   bool  // too much is asked: nothing was looked up, and Err says what is too much
	Err       error // why not all were sent
}

// RetainedInfo is what Listener.Retained gets.
type RetainedInfo struct {
	Made, Dropped []string // names of partitions
	Expired       int64    // rows that no partition covers
	Err           error
}

// withDefaults fills in no-ops, so that callers needn't ask.
func (l *Listener) withDefaults() *Listener {
	f := Listener{}
	if l != nil {
		f = *l
	}
	def(&f.PathChanged, func(PathInfo) {})
	def(&f.BreakerChanged, func(bool) {})
	def(&f.Recorded, func([]rocketflow.Event) {})
	def(&f.Prepared, func(PreparedInfo) {})
	def(&f.Committed, func([]rocketflow.Event) {})
	def(&f.Ended, func(EndedInfo) {})
	def(&f.Relayed, func(RelayedInfo) {})
	def(&f.Rejected, func(RejectedInfo) {})
	def(&f.RelayFull, func(rocketflow.Event) {})
	def(&f.Acked, func(AckedInfo) {})
	def(&f.Checked, func(CheckedInfo) {})
	def(&f.Discarded, func(DiscardedInfo) {})
	def(&f.Swept, func(SweptInfo) {})
	def(&f.Resent, func(ResentInfo) {})
	def(&f.Retained, func(RetainedInfo) {})
	if f.RolledBack == nil {
		f.RolledBack = func([]rocketflow.Event, bool) {}
	}
	return &f
}

// guarded returns a listener of the application's functions that survives them.
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

func def[A any](f *func(A), noop func(A)) {
	if *f == nil {
		*f = noop
	}
}

// Tee returns a listener that tells each of ls, in order.
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

func tee[A any](all []*Listener, pick func(*Listener) func(A)) func(A) {
	return func(a A) {
		for _, l := range all {
			pick(l)(a)
		}
	}
}
