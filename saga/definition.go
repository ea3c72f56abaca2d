package saga

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// Definition is a workflow as data: states, what each waits for, where that leads. Its methods and the functions On and
// KeyBy fill it in any order; [Register] checks it, and from then on it must not be changed.
type Definition[S any] struct {
	name        string
	version     int
	initial     []string // exactly one is right
	states      []*state[S]
	transitions []*transition[S]
	starts      []*start[S]
	keys        map[route]func(rocketflow.Event) (string, error) // for what doesn't correlate by subject
	waits       map[route]WaitPolicy
	problems    []string // found while it was written
}

// start is an event that begins a saga.
type start[S any] struct {
	route route
	run   func(context.Context, rocketflow.Tx, rocketflow.Event) (S, error)
}

type state[S any] struct {
	name       string
	declared   bool // by Initial, Final, Deadline or NoDeadline
	final      bool
	noDeadline bool
	deadlines  []*deadline[S] // at most one is right
}

type deadline[S any] struct {
	to string
	at func(*S) time.Time
	fn func(context.Context, rocketflow.Tx, *S) error // may be nil
}

type transition[S any] struct {
	from, to string
	route    route
	run      func(context.Context, rocketflow.Tx, *S, rocketflow.Event) error
}

// route is where an event comes in.
type route struct{ topic, eventType string }

// Define begins a definition. name is lasting: it is in the rows and in the type of the deadlines' events. Letters,
// digits, _ - and . are allowed. version begins with 1; S is stored as JSON.
func Define[S any](name string, version int) *Definition[S] {
	return &Definition[S]{
		name: name, version: version, keys: map[route]func(rocketflow.Event) (string, error){}, waits: map[route]WaitPolicy{},
	}
}

// state returns the state of that name, new if need be.
func (d *Definition[S]) state(name string) *state[S] {
	if s := d.find(name); s != nil {
		return s
	}
	s := &state[S]{name: name}
	d.states = append(d.states, s)
	return s
}

func (d *Definition[S]) find(name string) *state[S] {
	for _, s := range d.states {
		if s.name == name {
			return s
		}
	}
	return nil
}

func (d *Definition[S]) declare(name string) *state[S] {
	s := d.state(name)
	s.declared = true
	return s
}

// Initial says in which state a saga begins.
func (d *Definition[S]) Initial(state string) *Definition[S] {
	d.declare(state)
	d.initial = append(d.initial, state)
	return d
}

// Final says in which states a saga is finished.
func (d *Definition[S]) Final(states ...string) *Definition[S] {
	for _, name := range states {
		d.declare(name).final = true
	}
	return d
}

// NoDeadline says that a saga may wait in these states for ever.
func (d *Definition[S]) NoDeadline(states ...string) *Definition[S] {
	for _, name := range states {
		d.declare(name).noDeadline = true
	}
	return d
}

// Deadline says how long a saga waits in a state, and where it goes then. at is called when the state is entered and
// must give an instant; one that has passed is due at once. fn, which may be nil, runs when the deadline has passed. A
// deadline may lead back to its own state, and is armed again then: at must give a later instant each time.
func (d *Definition[S]) Deadline(state, to string, at func(s *S) time.Time, fn func(ctx context.Context, tx rocketflow.Tx, s *S) error) *Definition[S] {
	s := d.declare(state)
	s.deadlines = append(s.deadlines, &deadline[S]{to, at, fn})
	if at == nil {
		d.problem("state %s: its deadline has no instant", state)
	}
	return d
}

// On adds a transition: in state from, an event with the content P runs fn and leads to state to, which may be from. fn
// may be nil. There is one transition for each state and type of event. The event finds its saga by its subject, unless
// [KeyBy] says otherwise.
//
// fn runs in the handler's transaction, after the saga's row was locked. If it returns an error nothing happened, and the
// error means what it means from any handler.
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

// StartOn has events with the content P begin sagas: where the event's key has none, fn returns the data of a new one, in
// its initial state. fn runs in the handler's transaction. Where there is a saga already, the event is one as any other,
// and takes a transition if [On] has one for it.
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

// KeyBy says how events with the content P find their saga. An empty key ignores the event.
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

// routeOf asks the zero P where it belongs. What can't say it is noted as a problem.
func routeOf[P rocketflow.Payload, S any](d *Definition[S]) (r route, ok bool) {
	var zero P
	defer func() {
		if recover() != nil { // a nil pointer, most likely
			d.problem("payload %T: its zero value can't tell topic and type; give EventMeta a value receiver", zero)
			ok = false
		}
	}()
	meta := zero.EventMeta()
	if meta.Topic == "" || meta.Type == "" {
		d.problem("payload %T: its zero value must tell topic and type", zero)
		return route{}, false
	}
	return route{meta.Topic, meta.Type}, true
}

func (d *Definition[S]) problem(format string, args ...any) {
	d.problems = append(d.problems, fmt.Sprintf(format, args...))
}

// transition returns what leads out of a state on an event, or nil.
func (d *Definition[S]) transition(from string, r route) *transition[S] {
	for _, t := range d.transitions {
		if t.from == from && t.route == r {
			return t
		}
	}
	return nil
}

// start returns what begins a saga on an event, or nil.
func (d *Definition[S]) start(r route) *start[S] {
	for _, s := range d.starts {
		if s.route == r {
			return s
		}
	}
	return nil
}

// knows tells whether the definition has a state of this name.
func (d *Definition[S]) knows(state string) bool {
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

func (d *Definition[S]) hasDeadlines() bool {
	for _, s := range d.states {
		if s.deadline() != nil {
			return true
		}
	}
	return false
}

// routes returns where the definition's events come in, each once.
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
