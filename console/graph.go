package console

import (
	"context"
	"slices"

	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/saga"
)

// sagaGraph is a saga's states and what leads from each to another, with the number of sagas in each.
type sagaGraph struct {
	Name    string
	Version int  // of the definition
	Defined bool // false: it was made of what is recorded
	States  []sagaState
	Drawing *drawing // nil: there is too much of it, or nothing
	Looked  int64    // how many transitions were looked at, of more; 0: all
}

// sagaState is a state of a sagaGraph.
type sagaState struct {
	Name     string // empty: the beginning
	Final    bool
	Unknown  bool // the definition doesn't have it: sagas of another version are in it
	Current  bool // the saga that is shown is in it
	Running  int64
	Finished int64 // in the last hour
	Leads    []sagaLead
}

// sagaLead is what leads from a state.
type sagaLead struct {
	To       string
	Cause    string
	Deadline bool
	Count    int64 // how often, of what was looked at; 0: it is of the definition
}

// Title is the state's name.
func (s sagaState) Title() string {
	if s.Name == "" {
		return "the beginning"
	}
	return s.Name
}

// graphOf returns the graph of the sagas with a name: of their definition with the highest version, if Service.Sagas has one, and otherwise
// of the recorded transitions. current is the state of the saga that is shown, if one is. nil: nothing is known of such sagas.
func (q *request) graphOf(ctx context.Context, s *Service, name, current string) (*sagaGraph, error) {
	g := &sagaGraph{Name: name}
	if d := definitionOf(s, name); d != nil {
		g = ofDefinition(*d)
	}
	if !g.Defined {
		list, err := read(ctx, &q.reads, key("transitions", s.Name, name), func(ctx context.Context) ([]operate.TransitionCount, error) {
			return s.Operator.SagaTransitions(ctx, name)
		})
		if err != nil {
			return nil, err
		}
		g = ofHistory(name, list)
	}
	state := func(name string) *sagaState {
		i := slices.IndexFunc(g.States, func(s sagaState) bool { return s.Name == name })
		if i < 0 {
			i, g.States = len(g.States), append(g.States, sagaState{Name: name, Unknown: g.Defined})
		}
		return &g.States[i]
	}
	for _, v := range q.look() {
		if v.name != s.Name || v.overview == nil {
			continue
		}
		for _, c := range v.overview.Sagas {
			if c.Name == name {
				state(c.State).Running += c.Sagas
			}
		}
		for _, c := range v.overview.SagasFinished {
			if c.Name == name {
				f := state(c.State)
				f.Finished, f.Final = f.Finished+c.Sagas, true
			}
		}
	}
	if current != "" {
		state(current).Current = true
	}
	if len(g.States) == 0 {
		return nil, nil
	}
	g.Drawing = draw(g)
	return g, nil
}

// ofDefinition returns the graph of a definition.
func ofDefinition(d saga.Graph) *sagaGraph {
	g := &sagaGraph{Name: d.Name, Version: d.Version, Defined: true, States: []sagaState{{}}}
	for _, s := range d.States {
		g.States = append(g.States, sagaState{Name: s.Name, Final: s.Final})
	}
	for i := range g.States {
		for _, t := range d.Transitions {
			if t.From == g.States[i].Name {
				g.States[i].Leads = append(g.States[i].Leads, sagaLead{To: t.To, Cause: t.Event, Deadline: t.Deadline})
			}
		}
	}
	return g
}

// ofHistory returns the graph of transitions that are recorded, with the states in the order in which they are reached.
func ofHistory(name string, list []operate.TransitionCount) *sagaGraph {
	g := &sagaGraph{Name: name}
	if len(list) == 0 {
		return g
	}
	seen := map[string]bool{}
	add := func(state string) {
		if !seen[state] {
			seen[state] = true
			g.States = append(g.States, sagaState{Name: state})
		}
	}
	looked := int64(0)
	from := map[string][]sagaLead{}
	for _, t := range list {
		l := sagaLead{To: t.To, Cause: t.Cause, Count: t.Count, Deadline: t.Cause == "saga.deadline."+name}
		if t.Cause == "saga.begin" {
			l.Cause = ""
		}
		from[t.From] = append(from[t.From], l)
		looked += t.Count
	}
	if looked >= operate.MaxTransitions {
		g.Looked = looked
	}
	add("")
	for first := 0; ; {
		for ; first < len(g.States); first++ {
			g.States[first].Leads = from[g.States[first].Name]
			for _, l := range g.States[first].Leads {
				add(l.To)
			}
		}
		i := slices.IndexFunc(list, func(t operate.TransitionCount) bool { return !seen[t.From] }) // its beginning was not looked at
		if i < 0 {
			return g
		}
		add(list[i].From)
	}
}

// Label is what an arrow says.
func (l sagaLead) Label() string {
	switch {
	case l.Deadline:
		return "deadline"
	case l.Cause == "":
		return "Begin"
	}
	return l.Cause
}

// counting says how many sagas are in a state.
func (s sagaState) counting() string {
	switch {
	case s.Unknown:
		return capped(s.Running).String() + " of another version"
	case s.Final && s.Running == 0:
		return capped(s.Finished).String() + " in the last hour"
	}
	return capped(s.Running).String() + " running"
}
