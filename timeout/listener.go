package timeout

import (
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/internal/guard"
)

// Info is a timeout as it is reported.
type Info struct {
	Key, Name string
	Epoch     uuid.UUID // the event's id
	DueAt     time.Time

	// Late is how long after DueAt it happened, by Postgres' clock; negative before it. Zero where nothing is known of it.
	Late time.Duration

	// Topic and Type are the event's, and Sends is how often the sweep sent it because it is overdue, where that is known.
	Topic, Type string
	Sends       int
}

// Listener hears what happens to timeouts. A nil function hears nothing. They are called from many goroutines and should
// be quick. One that panics, or calls runtime.Goexit, is logged as an error, and what it was told of goes on.
type Listener struct {
	// Armed: a transaction that armed or moved the timeout committed.
	Armed func(Info)
	// Disarmed: a transaction that disarmed the timeout committed (or is going to, if it is not a rocketflow.Tx).
	Disarmed func(Info)
	// HandedOver: the broker holds a timer for it.
	HandedOver func(Info)
	// HandOverFailed: the broker did not take it; the sweep will try again.
	HandOverFailed func(Info, error)
	// Recovered: the sweep handed the timeout over, or sent it because it is overdue, after a crash or because the broker
	// was away or lost it. Late tells the two apart.
	Recovered func(Info)
	// Fired: a handler's transaction that was woken by it committed.
	Fired func(Info)
	// TooEarly: the event came before its time and will come again.
	TooEarly func(Info)
	// Stale: the event of a timeout that was disarmed, moved or had fired before; it had no effect.
	Stale func(Info)
	// Stuck: the sweep has sent the event ten times, the timeout is overdue for longer than Config.StuckAfter, and nobody has
	// handled it. It is sent once a day from then on, until it fires or is disarmed.
	Stuck func(Info)
}

// guarded returns a listener of the application's functions that survives them.
func (l Listener) guarded(r *guard.Reporter) Listener {
	guard.Listen(r, "Listener.Armed", &l.Armed)
	guard.Listen(r, "Listener.Disarmed", &l.Disarmed)
	guard.Listen(r, "Listener.HandedOver", &l.HandedOver)
	guard.Listen(r, "Listener.Recovered", &l.Recovered)
	guard.Listen(r, "Listener.Fired", &l.Fired)
	guard.Listen(r, "Listener.TooEarly", &l.TooEarly)
	guard.Listen(r, "Listener.Stale", &l.Stale)
	guard.Listen(r, "Listener.Stuck", &l.Stuck)
	if failed := l.HandOverFailed; failed != nil {
		l.HandOverFailed = func(i Info, err error) {
			r.Report("Listener.HandOverFailed", guard.Run(func() { failed(i, err) }))
		}
	}
	return l
}

func tell(fn func(Info), i Info) {
	if fn != nil {
		fn(i)
	}
}

// Tee returns a Listener that tells all of them, in order.
func Tee(listeners ...*Listener) *Listener {
	var all Listener
	for _, l := range listeners {
		if l == nil {
			continue
		}
		tee(&all.Armed, l.Armed)
		tee(&all.Disarmed, l.Disarmed)
		tee(&all.HandedOver, l.HandedOver)
		tee(&all.Recovered, l.Recovered)
		tee(&all.Fired, l.Fired)
		tee(&all.TooEarly, l.TooEarly)
		tee(&all.Stale, l.Stale)
		tee(&all.Stuck, l.Stuck)
		if first, fn := all.HandOverFailed, l.HandOverFailed; first == nil {
			all.HandOverFailed = fn
		} else if fn != nil {
			all.HandOverFailed = func(i Info, err error) { first(i, err); fn(i, err) }
		}
	}
	return &all
}

func tee(all *func(Info), fn func(Info)) {
	first := *all
	switch {
	case first == nil:
		*all = fn
	case fn != nil:
		*all = func(i Info) { first(i); fn(i) }
	}
}
