package saga

import (
	"time"

	"github.com/rocketflow/rocketflow"
)

// WaitPolicy says how long an event waits that its saga can't take yet.
type WaitPolicy struct {
	// Limit is how long it waits for a state that takes it. Default: Config.WaitLimit; negative: it doesn't wait and is
	// ignored, as what no state takes.
	Limit time.Duration
	// UnbegunLimit is how long it waits for its saga to begin. Default: Config.UnbegunLimit; negative: it doesn't wait and
	// is ignored.
	UnbegunLimit time.Duration
}

// Wait says how long events with the content P wait.
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

// limit is how long an event waits for a state that takes it. false: it doesn't wait.
func (s *Saga[S]) limit(d *Definition[S], r route) (time.Duration, bool) {
	return limitOf(d.waits[r].Limit, s.engine.cfg.WaitLimit)
}

// unbegunLimit is how long an event waits for its saga to begin. false: it doesn't wait.
func (s *Saga[S]) unbegunLimit(r route) (time.Duration, bool) {
	return limitOf(s.latest.waits[r].UnbegunLimit, s.engine.cfg.UnbegunLimit)
}

func limitOf(own, general time.Duration) (time.Duration, bool) {
	if own == 0 {
		own = general
	}
	return own, own > 0
}

// early tells whether a state takes an event that can be reached from a state which doesn't.
func (d *Definition[S]) early(state string, r route) bool {
	for name := range d.reachable(state) {
		if d.transition(name, r) != nil {
			return true
		}
	}
	return false
}

// taken returns the topics and types that a state takes.
func (d *Definition[S]) taken(state string) (topics, types []string) {
	topics, types = []string{}, []string{}
	for _, t := range d.transitions {
		if t.from == state {
			topics, types = append(topics, t.route.topic), append(types, t.route.eventType)
		}
	}
	return topics, types
}
