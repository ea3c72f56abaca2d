package rocketflowtest

import (
	"context"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/operate"
)

// Events returns the contents of all events of T's type that have reached the broker, in the order in which it stored
// them; duplicates too, should there be any.
func Events[T rocketflow.Payload](w *World) []T {
	w.t.Helper()
	var zero T
	var all []T
	for _, e := range w.Events(zero.EventMeta().Type) {
		v, err := wire.DecodeBody[T](e)
		if err != nil {
			w.t.Fatalf("event %s: %v", e.ID, err)
		}
		all = append(all, v)
	}
	return all
}

// Events returns all events of a type that have reached the broker, in the order in which it stored them; with an empty
// type all events.
func (w *World) Events(eventType string) []rocketflow.Event {
	w.book.follow(w.broker)
	w.book.mu.Lock()
	defer w.book.mu.Unlock()
	var all []rocketflow.Event
	for _, e := range w.book.order {
		if eventType == "" || e.Type == eventType {
			all = append(all, e)
		}
	}
	return all
}

// Timeout is an armed timeout.
type Timeout struct {
	Key, Name string
	Due       time.Time
}

// Timeouts returns the service's armed timeouts, the next due first.
func (s *Service) Timeouts() []Timeout {
	s.world.t.Helper()
	ctx, cancel := s.world.patience()
	defer cancel()
	found, err := s.operator().Timeouts(ctx, operate.TimeoutFilter{Limit: 100_000})
	if err != nil {
		s.world.t.Fatalf("%v", err)
	}
	var all []Timeout
	for _, t := range found {
		all = append(all, Timeout{t.Key, t.Name, t.DueAt})
	}
	return all
}

// Saga is a saga as it stands.
type Saga struct {
	operate.Saga
	Path []string // the states that it has been in, the present one last
}

// Saga returns the service's saga of a name and key. If there is none its State is empty.
func (s *Service) Saga(name, key string) Saga {
	s.world.t.Helper()
	ctx, cancel := s.world.patience()
	defer cancel()
	list, err := s.operator().Sagas(ctx, operate.SagaFilter{Key: key, Name: name})
	if err != nil {
		s.world.t.Fatalf("%v", err)
	}
	if len(list) == 0 {
		return Saga{}
	}
	found := Saga{Saga: list[0]}
	for _, t := range found.Transitions {
		found.Path = append(found.Path, t.To)
	}
	return found
}

// DeadLetters returns the events that the service's handlers gave up, the oldest first.
func (s *Service) DeadLetters() []operate.ParkedEvent {
	s.world.t.Helper()
	return s.parked(s.operator().DeadLetters)
}

// Waiting returns the events that wait for their next attempt or for their predecessor, the oldest first.
func (s *Service) Waiting() []operate.ParkedEvent {
	s.world.t.Helper()
	return s.parked(s.operator().ParkedEvents)
}

func (s *Service) parked(list func(context.Context, operate.ParkedFilter) ([]operate.ParkedEvent, error)) []operate.ParkedEvent {
	s.world.t.Helper()
	ctx, cancel := s.world.patience()
	defer cancel()
	found, err := list(ctx, operate.ParkedFilter{})
	if err != nil {
		s.world.t.Fatalf("%v", err)
	}
	return found
}

// operator returns what reads and changes the service's tables as a person would.
func (s *Service) operator() *operate.Operator {
	s.world.t.Helper()
	o, err := operate.New(operate.Config{Pool: s.Pool, Schema: s.Schema})
	if err != nil {
		s.world.t.Fatalf("%v", err)
	}
	return o
}
