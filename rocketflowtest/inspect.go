package rocketflowtest

import (
	"context"
	"slices"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/internal/inspect"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/saga"
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
	var all []Timeout
	err := inspect.Read(ctx, s.Pool, s.Schema, func(r *inspect.Reader) error {
		found, err := r.Timeouts(ctx, "", 100_000)
		for _, t := range found {
			all = append(all, Timeout{t.Key, t.Name, t.DueAt})
		}
		return err
	})
	if err != nil {
		s.env.t.Fatalf("%v", err)
	}
	return all
}

// Saga is a snapshot of a saga.
type Saga struct {
	saga.Record
	// States are the states that the saga has been in, the present one last.
	States []string
}

// Saga returns a snapshot of the saga of a name and key. If there is none, its State is empty.
func (s *Service) Saga(name, key string) Saga {
	s.env.t.Helper()
	ctx, cancel := s.env.timeout()
	defer cancel()
	records, err := saga.History(ctx, s.Pool, s.Schema, key)
	if err != nil {
		s.env.t.Fatalf("%v", err)
	}
	i := slices.IndexFunc(records, func(r saga.Record) bool { return r.Name == name })
	if i < 0 {
		return Saga{}
	}
	found := Saga{Record: records[i]}
	for _, t := range records[i].Transitions {
		found.States = append(found.States, t.To)
	}
	return found
}

// DeadLetters returns the dead letters of the service's handlers, the oldest first.
func (s *Service) DeadLetters() []handlers.Parked {
	s.env.t.Helper()
	return s.listParked((*handlers.DeadLetters).List)
}

// Parked returns the parked events of the service that wait: for their next attempt or for their predecessor. The oldest is
// first.
func (s *Service) Parked() []handlers.Parked {
	s.env.t.Helper()
	return s.listParked((*handlers.DeadLetters).Waiting)
}

func (s *Service) listParked(list func(*handlers.DeadLetters, context.Context, handlers.Filter) ([]handlers.Parked, error)) []handlers.Parked {
	s.env.t.Helper()
	ctx, cancel := s.env.timeout()
	defer cancel()
	found, err := list(handlers.NewDeadLetters(s.Pool, s.Schema), ctx, handlers.Filter{})
	if err != nil {
		s.env.t.Fatalf("%v", err)
	}
	return found
}
