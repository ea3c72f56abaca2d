package handlers

import (
	"fmt"
	"time"

	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// PauseKind says what a pause holds.
type PauseKind string

// The kinds of pauses.
const (
	// PausedConsumer holds the whole consumer: its lanes handle nothing. What was delivered waits in memory, up to MaxInFlight, and the
	// rest at the broker.
	PausedConsumer = PauseKind(inbox.PausedConsumer)
	// PausedHandler holds the events of a topic and type, and what is behind them in their streams. They are parked.
	PausedHandler = PauseKind(inbox.PausedHandler)
	// PausedStream holds the events of a topic and subject. They are parked.
	PausedStream = PauseKind(inbox.PausedStream)
)

// Pause is something of a consumer that an operator has paused. Fields that don't belong to the kind are empty.
type Pause struct {
	Consumer string    `json:"consumer"`          // the name of the consumer
	Kind     PauseKind `json:"kind"`              // what is paused of it
	Topic    string    `json:"topic,omitempty"`   // of a handler or a stream
	Type     string    `json:"type,omitempty"`    // of a handler
	Subject  string    `json:"subject,omitempty"` // of a stream
	Since    time.Time `json:"since"`             // when it was paused, by Postgres' clock
	Actor    string    `json:"actor"`             // who paused it
	Reason   string    `json:"reason,omitempty"`  // why
}

// String returns what is paused.
func (p Pause) String() string {
	switch p.Kind {
	case PausedHandler:
		return printable.Line(fmt.Sprintf("the handler of %s for %s %s", p.Consumer, p.Topic, p.Type), maxLogged)
	case PausedStream:
		return printable.Line(fmt.Sprintf("the streams of %s with subject %s on topic %s", p.Consumer, p.Subject, p.Topic), maxLogged)
	}
	return "consumer " + p.Consumer
}

// Paused returns what operators have paused of the consumers, as this process has noticed it: within seconds. It is no error: nothing is
// lost, and it goes on when it is resumed (`rocketflow resume`, operate.Operator.Resume).
func (r *Router) Paused() (list []Pause) {
	consumers := r.running.Load()
	if consumers == nil {
		return nil
	}
	for _, c := range *consumers {
		if p := c.pauses.Load(); p != nil {
			list = append(list, c.public(*p)...)
		}
	}
	return list
}

func (c *consumer) public(pauses inbox.Pauses) []Pause {
	list := make([]Pause, len(pauses))
	for i, p := range pauses {
		list[i] = Pause{c.name, PauseKind(p.Kind), p.Topic, p.Type, p.Subject, p.At, p.Actor, p.Reason}
	}
	return list
}

// holdAll makes the lanes wait until findDue sees that the consumer isn't paused.
func (c *consumer) holdAll() {
	c.queue.pause(true)
	c.signal()
}

// notePauses compares what is paused with what was, reports changes, and holds or releases the lanes. It returns whether something was
// resumed.
func (c *consumer) notePauses(now inbox.Pauses) (resumed bool) {
	var before inbox.Pauses
	known := c.pauses.Load()
	if known != nil {
		before = *known
	}
	c.pauses.Store(&now)
	c.queue.pause(now.All())
	if known != nil && before.Equal(now) {
		return false
	}
	list := c.public(now)
	for i, p := range list {
		if !before.Has(now[i]) {
			c.cfg.Logger.Warn("an operator has paused a consumer, a handler or streams; events are kept in order and wait: resume with `rocketflow resume`",
				keyConsumer, c.name, keyPaused, p.String(), keyActor, printable.Line(p.Actor, maxLogged), keyReason, printable.Line(p.Reason, maxLogged))
		}
	}
	if resumed = before.Lost(now); resumed {
		c.cfg.Logger.Info("an operator has resumed what was paused; its events are handled again", keyConsumer, c.name, keyPaused, len(now))
	}
	c.cfg.Listener.Paused(PausedInfo{c.name, list})
	return resumed
}

// longestWait returns how long findDue waits at most after what it has found.
func longestWait(found inbox.Found) time.Duration {
	switch {
	case found.More:
		return minWait
	case len(found.Pauses) > 0:
		return pausedRecheck
	}
	return maxWait
}

// resumption says when findDue looks for events that were parked because of a pause that has ended: for some time after it has noticed a
// resume, as a turn that had read the pause before may still park events; and at the start and each strandedInterval, for a process
// that was not there.
type resumption struct{ next, until time.Time }

func (r *resumption) looks(now time.Time) bool {
	return now.Before(r.until) || !now.Before(r.next)
}

// note records a look. A turn that had read a pause ends within turn.
func (r *resumption) note(now time.Time, resumed, more bool, turn time.Duration) {
	if !now.Before(r.next) {
		r.next = now.Add(strandedInterval)
	}
	if resumed {
		r.until = now.Add(turn)
	}
	if more {
		r.next = now
	}
}
