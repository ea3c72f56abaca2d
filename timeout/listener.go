package timeout

import (
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/listen"
)

// Info describes a timeout to a Listener.
type Info struct {
	// Key and Name identify the timeout.
	Key, Name string
	// Epoch is the id of the timeout's event. Each arm and each move draws a new one.
	Epoch uuid.UUID
	// DueAt is when the timeout fires at the earliest.
	DueAt time.Time
	// Late is the time from DueAt to what is reported, by the clock of Postgres. It is negative before DueAt, and zero where
	// it is not known.
	Late time.Duration
	// Topic and Type are those of the timeout's event. They are empty where they are not known.
	Topic, Type string
	// Sends is the number of times that the sweep sent the event because the timeout was due, where it is known.
	Sends int
	// Err is the cause of a failure, or nil.
	Err error
}

// Listener observes timeouts. A nil function is skipped. The functions are called from several goroutines at a time and
// must return quickly. A function that panics or calls runtime.Goexit is logged as an error and has no other effect.
type Listener struct {
	// Armed is called after a transaction that armed or moved the timeout committed.
	Armed func(Info)
	// Disarmed is called after a transaction that disarmed the timeout committed. For a transaction that is no rocketflow.Tx it
	// is called before the commit.
	Disarmed func(Info)
	// HandedOver is called after the broker stored a timer for the timeout, or the event of a timeout that fires from
	// Postgres.
	HandedOver func(Info)
	// HandOverFailed is called when the broker did not accept the timeout's message. Err is the cause. The sweep tries again, or,
	// if the broker rejected a timer, sends the event when the timeout is due.
	HandOverFailed func(Info)
	// Recovered is called after the sweep handed the timeout over (Late is negative), or sent its event because it was overdue.
	// The cause is a crash, an unreachable broker, or a timer that the broker lost.
	Recovered func(Info)
	// Fired is called after the transaction that handled the timeout's event committed.
	Fired func(Info)
	// TooEarly is called when the event came before DueAt. The consumer gets it again when it is due.
	TooEarly func(Info)
	// Stale is called for the event of a timeout that was disarmed, moved, or has fired before. The event has no effect.
	Stale func(Info)
	// Stuck is called once when the event was sent ten times, the timeout is overdue for longer than Config.StuckAfter, and no
	// consumer has handled the event. From then on the event is sent once a day, until the timeout fires or is disarmed.
	Stuck func(Info)
}

// functions returns pointers to the functions, each with the name of its field.
func (l *Listener) functions() map[string]*func(Info) {
	return map[string]*func(Info){
		"Armed": &l.Armed, "Disarmed": &l.Disarmed, "HandedOver": &l.HandedOver, "HandOverFailed": &l.HandOverFailed, "Recovered": &l.Recovered,
		"Fired": &l.Fired, "TooEarly": &l.TooEarly, "Stale": &l.Stale, "Stuck": &l.Stuck,
	}
}

// guarded returns a copy whose functions can't panic or end the goroutine of their caller. l may be nil.
func (l *Listener) guarded(r *guard.Reporter) *Listener {
	var all Listener
	if l != nil {
		all = *l
	}
	for name, fn := range all.functions() {
		guard.Listen(r, "Listener."+name, fn)
	}
	return &all
}

// Tee returns a Listener that calls the functions of all listeners, in order. Nil listeners are skipped.
func Tee(listeners ...*Listener) *Listener {
	var all Listener
	combined := all.functions()
	for _, l := range listeners {
		if l == nil {
			continue
		}
		for name, fn := range l.functions() {
			listen.Tee(combined[name], *fn)
		}
	}
	return &all
}
