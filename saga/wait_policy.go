package saga

import (
	"time"

	"github.com/rocketflow/rocketflow"
)

// WaitPolicy says how long an event waits that its saga can't accept yet.
type WaitPolicy struct {
	// Limit is how long the event waits for a state that accepts it. If it is negative, the event doesn't wait and is ignored.
	// Defaults to Config.WaitLimit.
	Limit time.Duration
	// UnbegunLimit is how long the event waits for its saga to begin. If it is negative, the event doesn't wait and is ignored.
	// Defaults to Config.UnbegunLimit.
	UnbegunLimit time.Duration
}

// Wait sets the WaitPolicy of events with the payload P.
func Wait[P rocketflow.Payload, S any](d *Definition[S], p WaitPolicy) {
	r, ok := routeOf[P](d)
	if !ok {
		return
	}
	if _, twice := d.waits[r]; twice {
		d.problem("event %s: two wait policies", r.eventType)
	}
	d.waits[r] = p
}

// waitLimit returns how long an event waits for a state that accepts it, and false if it doesn't wait.
func (s *Saga[S]) waitLimit(d *Definition[S], r route) (time.Duration, bool) {
	return limitOr(d.waits[r].Limit, s.engine.cfg.WaitLimit)
}

// unbegunLimit returns how long an event waits for its saga to begin, and false if it doesn't wait.
func (s *Saga[S]) unbegunLimit(r route) (time.Duration, bool) {
	return limitOr(s.latest.waits[r].UnbegunLimit, s.engine.cfg.UnbegunLimit)
}

func limitOr(own, general time.Duration) (time.Duration, bool) {
	if own == 0 {
		own = general
	}
	return own, own > 0
}

// acceptsLater reports whether a state that can be reached from this one, or this one, accepts an event.
func (d *Definition[S]) acceptsLater(state string, r route) bool {
	for name := range d.reachable(state) {
		if d.transition(name, r) != nil {
			return true
		}
	}
	return false
}

// accepted returns the topics and types of the events that a state accepts, side by side.
func (d *Definition[S]) accepted(state string) (topics, types []string) {
	topics, types = []string{}, []string{}
	for _, t := range d.transitions {
		if t.from == state {
			topics, types = append(topics, t.route.topic), append(types, t.route.eventType)
		}
	}
	return topics, types
}
