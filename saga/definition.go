package saga

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// Definition is a state machine: its states, their deadlines, and the transitions that events make. S is the data of a saga,
// which is stored as JSON. Build a definition with [Define], its methods, and the functions [On], [StartOn], [KeyBy] and
// [Wait], in any order; they don't return errors. [Register] validates it. It must not be changed after that.
type Definition[S any] struct {
	name        string
	version     int
	initial     []string // exactly one is valid
	states      []*state[S]
	transitions []*transition[S]
	starts      []*start[S]
	keys        map[route]func(rocketflow.Event) (string, error) // of the events that don't find their saga by their subject
	waits       map[route]WaitPolicy
	problems    []string // found while it was built
}

// start is an event that begins a saga, with the function that returns its data.
type start[S any] struct {
	route route
	run   func(context.Context, rocketflow.Tx, rocketflow.Event) (S, error)
}

// state is a state that was named by a method or a transition.
type state[S any] struct {
	name       string
	declared   bool // by Initial, Final, Deadline or NoDeadline
	final      bool
	noDeadline bool
	deadlines  []*deadline[S] // at most one is valid
}

// deadline is how long a saga stays in a state, and where it goes then.
type deadline[S any] struct {
	to string
	at func(*S) time.Time
	fn func(context.Context, rocketflow.Tx, *S) error // may be nil
}

// transition is what an event does in a state.
type transition[S any] struct {
	from, to string
	route    route
	run      func(context.Context, rocketflow.Tx, *S, rocketflow.Event) error
}

// route is the topic and type of an event.
type route struct{ topic, eventType string }

// Define returns an empty definition. name identifies its sagas in the database, in the name of their consumer and in the
// type of their deadlines' events, so it must not change: at most 100 letters, digits, "_", "-" and ".". version is 1 or more.
func Define[S any](name string, version int) *Definition[S] {
	return &Definition[S]{
		name: name, version: version, keys: map[route]func(rocketflow.Event) (string, error){}, waits: map[route]WaitPolicy{},
	}
}

// state returns the state with this name, and adds it if it is missing.
func (d *Definition[S]) state(name string) *state[S] {
	if s := d.find(name); s != nil {
		return s
	}
	s := &state[S]{name: name}
	d.states = append(d.states, s)
	return s
}

// find returns the state with this name, or nil.
func (d *Definition[S]) find(name string) *state[S] {
	for _, s := range d.states {
		if s.name == name {
			return s
		}
	}
	return nil
}

// declare returns the state with this name as a declared one.
func (d *Definition[S]) declare(name string) *state[S] {
	s := d.state(name)
	s.declared = true
	return s
}

// Initial declares the state in which a saga begins. A definition has exactly one.
func (d *Definition[S]) Initial(state string) *Definition[S] {
	d.declare(state)
	d.initial = append(d.initial, state)
	return d
}

// Final declares states in which a saga is finished. A definition has at least one.
func (d *Definition[S]) Final(states ...string) *Definition[S] {
	for _, name := range states {
		d.declare(name).final = true
	}
	return d
}

// NoDeadline declares states in which a saga may stay for ever.
func (d *Definition[S]) NoDeadline(states ...string) *Definition[S] {
	for _, name := range states {
		d.declare(name).noDeadline = true
	}
	return d
}

// Deadline declares a state that a saga leaves for the state to at the time that at returns. at is called when the state is
// entered; a time in the past is due at once, and the zero time is an error. fn runs in the transaction of the transition,
// as a function of [On] does; it may be nil. A deadline may lead back to its own state: it is armed again then, and at must
// return a later time.
func (d *Definition[S]) Deadline(state, to string, at func(s *S) time.Time, fn func(ctx context.Context, tx rocketflow.Tx, s *S) error) *Definition[S] {
	s := d.declare(state)
	s.deadlines = append(s.deadlines, &deadline[S]{to, at, fn})
	if at == nil {
		d.problem("state %s: its Deadline has no function for the time", state)
	}
	return d
}

// On adds a transition: an event with the payload P that finds its saga in the state from runs fn and moves the saga to the
// state to, which may be from itself. fn may be nil. A state has at most one transition for a type of event. The event finds
// its saga by its subject, or by [KeyBy].
//
// fn runs in the transaction of the event's handler, while the saga's row is locked. If it returns an error, the transition
// has no effect, and the error has the meaning that it has for any handler: the event is tried again, or becomes a dead
// letter.
func On[P rocketflow.Payload, S any](d *Definition[S], from, to string, fn func(ctx context.Context, tx rocketflow.Tx, s *S, p P) error) {
	r, ok := routeOf[P](d)
	if !ok {
		return
	}
	d.state(from)
	d.transitions = append(d.transitions, &transition[S]{from: from, to: to, route: r,
		run: func(ctx context.Context, tx rocketflow.Tx, s *S, e rocketflow.Event) error {
			if fn == nil {
				return nil
			}
			p, err := wire.DecodeBody[P](e)
			if err != nil {
				return err
			}
			return fn(ctx, tx, s, p)
		}})
}

// StartOn makes events with the payload P begin sagas: if no saga has the event's key, fn returns the data of a new one in its
// initial state. fn runs in the transaction of the event's handler. If the saga exists, the event makes the transition that
// [On] has for it, if any.
func StartOn[P rocketflow.Payload, S any](d *Definition[S], fn func(ctx context.Context, tx rocketflow.Tx, p P) (S, error)) {
	r, ok := routeOf[P](d)
	if !ok {
		return
	}
	if fn == nil {
		d.problem("event %s: StartOn without a function", r.eventType)
		return
	}
	if d.start(r) != nil {
		d.problem("event %s: a second StartOn", r.eventType)
	}
	d.starts = append(d.starts, &start[S]{r, func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) (data S, err error) {
		p, err := wire.DecodeBody[P](e)
		if err != nil {
			return data, err
		}
		return fn(ctx, tx, p)
	}})
}

// KeyBy sets the function that returns the key of the saga that an event with the payload P belongs to. Without it, the key
// is the event's subject. An event with an empty key is ignored.
func KeyBy[P rocketflow.Payload, S any](d *Definition[S], key func(p P) string) {
	r, ok := routeOf[P](d)
	if !ok {
		return
	}
	if d.keys[r] != nil {
		d.problem("event %s: two keys", r.eventType)
	}
	d.keys[r] = func(e rocketflow.Event) (string, error) {
		p, err := wire.DecodeBody[P](e)
		if err != nil {
			return "", err
		}
		return key(p), nil
	}
}

// routeOf returns the topic and type of events with the payload P, from the zero value of P. If that has none, routeOf adds a
// problem and returns false.
func routeOf[P rocketflow.Payload, S any](d *Definition[S]) (r route, ok bool) {
	var zero P
	defer func() {
		if recover() != nil { // probably a nil pointer
			d.problem("payload %T: EventMeta of its zero value panics; give EventMeta a value receiver", zero)
			ok = false
		}
	}()
	meta := zero.EventMeta()
	if meta.Topic == "" || meta.Type == "" {
		d.problem("payload %T: EventMeta of its zero value must return a topic and a type", zero)
		return route{}, false
	}
	return route{meta.Topic, meta.Type}, true
}

// problem adds a problem, which Register reports.
func (d *Definition[S]) problem(format string, args ...any) {
	d.problems = append(d.problems, fmt.Sprintf(format, args...))
}

// transition returns the transition of a state for an event, or nil.
func (d *Definition[S]) transition(from string, r route) *transition[S] {
	for _, t := range d.transitions {
		if t.from == from && t.route == r {
			return t
		}
	}
	return nil
}

// start returns the start for an event, or nil.
func (d *Definition[S]) start(r route) *start[S] {
	for _, s := range d.starts {
		if s.route == r {
			return s
		}
	}
	return nil
}

// hasState reports whether the definition declares a state with this name.
func (d *Definition[S]) hasState(state string) bool {
	s := d.find(state)
	return s != nil && s.declared
}

// deadline returns the deadline of the state, or nil.
func (s *state[S]) deadline() *deadline[S] {
	if s == nil || len(s.deadlines) == 0 {
		return nil
	}
	return s.deadlines[0]
}

// hasDeadlines reports whether any state has a deadline.
func (d *Definition[S]) hasDeadlines() bool {
	for _, s := range d.states {
		if s.deadline() != nil {
			return true
		}
	}
	return false
}

// routes returns the topics and types of the definition's events, each once.
func (d *Definition[S]) routes() []route {
	var routes []route
	for _, s := range d.starts {
		routes = append(routes, s.route)
	}
	for _, t := range d.transitions {
		if !slices.Contains(routes, t.route) {
			routes = append(routes, t.route)
		}
	}
	return routes
}
