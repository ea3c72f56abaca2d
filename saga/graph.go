package saga

import (
	"maps"
	"slices"
)

// Graph describes a definition without its functions: its states, and what leads from one to another. [Definition.Graph] and
// [Engine.Graphs] return it; package console draws it.
type Graph struct {
	Name        string            // of the definition
	Version     int               // of the definition
	States      []GraphState      // in the order in which they were added
	Transitions []GraphTransition // beginnings first
}

// GraphState is a state of a Graph.
type GraphState struct {
	Name  string
	Final bool // a saga in it is finished
}

// GraphTransition is a beginning or a transition of a Graph.
type GraphTransition struct {
	// From is the state that the saga leaves. Empty: the saga begins.
	From string
	// To is the state that the saga enters.
	To string
	// Event is the type of the event that causes it. Empty: a deadline, or a beginning by [Saga.Begin].
	Event    string
	Topic    string // of Event
	Deadline bool   // a deadline causes it
}

// Graph describes the definition. States and what leads from each are in the order in which they were added, and the beginnings come
// first, so that an unchanged definition has the same Graph.
func (d *Definition[S]) Graph() Graph {
	g := Graph{Name: d.name, Version: d.version}
	for _, name := range d.initial {
		for _, s := range d.starts {
			g.Transitions = append(g.Transitions, GraphTransition{To: name, Event: s.route.eventType, Topic: s.route.topic})
		}
		if len(d.starts) == 0 {
			g.Transitions = append(g.Transitions, GraphTransition{To: name})
		}
	}
	for _, s := range d.states {
		g.States = append(g.States, GraphState{s.name, s.final})
		for _, t := range d.transitions {
			if t.from == s.name {
				g.Transitions = append(g.Transitions, GraphTransition{From: s.name, To: t.to, Event: t.route.eventType, Topic: t.route.topic})
			}
		}
		for _, l := range s.deadlines {
			g.Transitions = append(g.Transitions, GraphTransition{From: s.name, To: l.to, Deadline: true})
		}
	}
	return g
}

// Graphs describes the definitions that were registered with the engine, by name.
func (e *Engine) Graphs() []Graph {
	sagas := e.registry()
	list := make([]Graph, 0, len(sagas))
	for _, name := range slices.Sorted(maps.Keys(sagas)) {
		list = append(list, sagas[name].graph())
	}
	return list
}
