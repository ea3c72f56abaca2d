package saga

import (
	"encoding/json"
	"fmt"
	"regexp"
)

// nameForm is the form of the names of sagas and states. They become parts of event types and names of timeouts.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$`)

// validate returns a *DefinitionError that lists all that is wrong, or nil.
func (d *Definition[S]) validate() error {
	problems := append([]string(nil), d.problems...)
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }

	if !nameForm.MatchString(d.name) {
		add("name %q: want at most 100 letters, digits, _ - .", d.name)
	}
	if d.version < 1 {
		add("version %d: want 1 or more", d.version)
	}
	if _, err := json.Marshal(*new(S)); err != nil {
		add("data can't be encoded as JSON: %v", err)
	}
	switch len(d.initial) {
	case 0:
		add("no initial state")
	case 1:
	default:
		add("%d initial states: %v", len(d.initial), d.initial)
	}
	anyFinal := false
	for _, s := range d.states {
		anyFinal = anyFinal || s.final
		if !nameForm.MatchString(s.name) {
			add("state %q: want at most 100 letters, digits, _ - .", s.name)
		}
		switch {
		case s.final && (s.noDeadline || len(s.deadlines) > 0):
			add("state %s: it is final and can't have a deadline", s.name)
		case s.final:
		case s.noDeadline && len(s.deadlines) > 0:
			add("state %s: both Deadline and NoDeadline", s.name)
		case len(s.deadlines) > 1:
			add("state %s: %d deadlines", s.name, len(s.deadlines))
		case !s.noDeadline && len(s.deadlines) == 0:
			add("state %s: it has neither Deadline nor NoDeadline", s.name)
		}
		for _, l := range s.deadlines {
			if to := d.find(l.to); to == nil || !to.declared {
				add("deadline of state %s: target %s is not declared", s.name, l.to)
			}
		}
	}
	if !anyFinal {
		add("no final state")
	}
	type fromType struct{ from, eventType string }
	seen := map[fromType]bool{}
	for _, t := range d.transitions {
		if s := d.find(t.from); s.final {
			add("transition %s: it leaves a final state", t)
		}
		if to := d.find(t.to); to == nil || !to.declared {
			add("transition %s: target %s is not declared", t, t.to)
		}
		if k := (fromType{t.from, t.route.eventType}); seen[k] {
			add("transition %s: a second one for this state and event", t)
		} else {
			seen[k] = true
		}
	}
	for r := range d.keys {
		if !d.handles(r) {
			add("event %s: KeyBy without a transition", r.eventType)
		}
	}
	for r := range d.waits {
		if !d.accepts(r) {
			add("event %s: Wait without a transition", r.eventType)
		}
	}
	if len(problems) == 0 { // an incomplete definition has incomplete paths
		problems = d.checkPaths()
	}
	if len(problems) == 0 {
		return nil
	}
	return &DefinitionError{Saga: d.name, Problems: problems}
}

// checkPaths returns the states that can't be reached, and those from which no final state can be reached.
func (d *Definition[S]) checkPaths() (problems []string) {
	live := d.reachable(d.initial[0])
	for _, s := range d.states {
		if !live[s.name] {
			problems = append(problems, fmt.Sprintf("state %s: it can't be reached", s.name))
			continue
		}
		ends := false
		for name := range d.reachable(s.name) {
			ends = ends || d.find(name).final
		}
		if !ends {
			problems = append(problems, fmt.Sprintf("state %s: no final state can be reached from it", s.name))
		}
	}
	return problems
}

// reachable returns the states that can be reached from a state by transitions and deadlines, and the state itself.
func (d *Definition[S]) reachable(from string) map[string]bool {
	next := map[string][]string{}
	for _, t := range d.transitions {
		next[t.from] = append(next[t.from], t.to)
	}
	for _, s := range d.states {
		if l := s.deadline(); l != nil {
			next[s.name] = append(next[s.name], l.to)
		}
	}
	seen, queue := map[string]bool{from: true}, []string{from}
	for len(queue) > 0 {
		for _, to := range next[queue[0]] {
			if !seen[to] {
				seen[to] = true
				queue = append(queue, to)
			}
		}
		queue = queue[1:]
	}
	return seen
}

// handles reports whether an event begins sagas of the definition or makes transitions.
func (d *Definition[S]) handles(r route) bool { return d.start(r) != nil || d.accepts(r) }

// accepts reports whether any state has a transition for an event.
func (d *Definition[S]) accepts(r route) bool {
	for _, t := range d.transitions {
		if t.route == r {
			return true
		}
	}
	return false
}

func (t *transition[S]) String() string {
	return fmt.Sprintf("%s --%s--> %s", t.from, t.route.eventType, t.to)
}
