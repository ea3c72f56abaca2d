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

// Events returns the contents of all events of T's type that have reached the broker, in the order in which it stored
// them; duplicates too, should there be any.
func Events[T rocketflow.Payload](w *Env) []T {
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
func (w *Env) Events(eventType string) []rocketflow.Event {
	w.progress.follow(w.broker)
	w.progress.mu.Lock()
	defer w.progress.mu.Unlock()
	var all []rocketflow.Event
	for _, e := range w.progress.order {
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
	ctx, cancel := s.world.timeout()
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
		s.world.t.Fatalf("%v", err)
	}
	return all
}

// Saga is a saga as it stands.
type Saga struct {
	saga.Record
	States []string // the states that it has been in, the present one last
}

// Saga returns the service's saga of a name and key. If there is none its State is empty.
func (s *Service) Saga(name, key string) Saga {
	s.world.t.Helper()
	ctx, cancel := s.world.timeout()
	defer cancel()
	records, err := saga.History(ctx, s.Pool, s.Schema, key)
	if err != nil {
		s.world.t.Fatalf("%v", err)
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

// DeadLetters returns the events that the service's handlers gave up, the oldest first.
func (s *Service) DeadLetters() []handlers.Parked {
	s.world.t.Helper()
	return s.listParked((*handlers.DeadLetters).List)
}

// Parked returns the events that wait for their next attempt or for their predecessor, the oldest first.
func (s *Service) Parked() []handlers.Parked {
	s.world.t.Helper()
	return s.listParked((*handlers.DeadLetters).Waiting)
}

func (s *Service) listParked(list func(*handlers.DeadLetters, context.Context, handlers.Filter) ([]handlers.Parked, error)) []handlers.Parked {
	s.world.t.Helper()
	ctx, cancel := s.world.timeout()
	defer cancel()
	found, err := list(handlers.NewDeadLetters(s.Pool, s.Schema), ctx, handlers.Filter{})
	if err != nil {
		s.world.t.Fatalf("%v", err)
	}
	return found
}
