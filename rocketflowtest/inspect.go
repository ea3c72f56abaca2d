package rocketflowtest

import (
	"context"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/operate"
)

// Events returns the payloads of all events of T's type that have reached the broker, in the order in which it stored them.
// An event that the broker stored twice is there twice.
func Events[T rocketflow.Payload](e *Env) []T {
	e.t.Helper()
	var zero T
	var all []T
	for _, event := range e.Events(zero.EventMeta().Type) {
		payload, err := wire.DecodeBody[T](event)
		if err != nil {
			e.t.Fatalf("event %s: %v", event.ID, err)
		}
		all = append(all, payload)
	}
	return all
}

// Events returns all events of a type that have reached the broker, in the order in which it stored them. An empty type
// stands for all types.
func (e *Env) Events(eventType string) []rocketflow.Event {
	var found []rocketflow.Event
	for _, event := range e.progress.all(e.broker) {
		if eventType == "" || event.Type == eventType {
			found = append(found, event)
		}
	}
	return found
}

// Timeout is an armed timeout.
type Timeout struct {
	// Key and Name identify the timeout, as in timeout.Scheduler.Arm.
	Key, Name string
	// Due is when it fires.
	Due time.Time
}

// Timeouts returns the armed timeouts of the service, the next due first.
func (s *Service) Timeouts() []Timeout {
	s.env.t.Helper()
	ctx, cancel := s.env.timeout()
	defer cancel()
	found, err := s.operator().Timeouts(ctx, operate.TimeoutFilter{Limit: 100_000})
	if err != nil {
		s.env.t.Fatalf("%v", err)
	}
	var all []Timeout
	for _, t := range found {
		all = append(all, Timeout{t.Key, t.Name, t.DueAt})
	}
	return all
}

// Saga is a snapshot of a saga.
type Saga struct {
	operate.Saga
	// States are the states that the saga has been in, the present one last.
	States []string
}

// Saga returns a snapshot of the saga of a name and key. If there is none, its State is empty.
func (s *Service) Saga(name, key string) Saga {
	s.env.t.Helper()
	ctx, cancel := s.env.timeout()
	defer cancel()
	list, err := s.operator().Sagas(ctx, operate.SagaFilter{Key: key, Name: name})
	if err != nil {
		s.env.t.Fatalf("%v", err)
	}
	if len(list) == 0 {
		return Saga{}
	}
	found := Saga{Saga: list[0]}
	for _, t := range found.Transitions {
		found.States = append(found.States, t.To)
	}
	return found
}

// DeadLetters returns the dead letters of the service's handlers, the oldest first.
func (s *Service) DeadLetters() []operate.ParkedEvent {
	s.env.t.Helper()
	return s.listParked(s.operator().DeadLetters)
}

// Parked returns the parked events of the service that wait: for their next attempt or for their predecessor. The oldest is
// first.
func (s *Service) Parked() []operate.ParkedEvent {
	s.env.t.Helper()
	return s.listParked(s.operator().ParkedEvents)
}

func (s *Service) listParked(list func(context.Context, operate.ParkedFilter) ([]operate.ParkedEvent, error)) []operate.ParkedEvent {
	s.env.t.Helper()
	ctx, cancel := s.env.timeout()
	defer cancel()
	found, err := list(ctx, operate.ParkedFilter{})
	if err != nil {
		s.env.t.Fatalf("%v", err)
	}
	return found
}

// operator returns an operator of the service's tables.
func (s *Service) operator() *operate.Operator {
	s.env.t.Helper()
	o, err := operate.New(operate.Config{Pool: s.Pool, Schema: s.Schema})
	if err != nil {
		s.env.t.Fatalf("%v", err)
	}
	return o
}
