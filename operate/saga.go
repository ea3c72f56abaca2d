package operate

import (
	"context"
	_ "embed"
	"encoding/json"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/valid"
)

//go:embed saga.sql
var sagaSQL string

// maxSagaTimeouts bounds the list of a saga's armed timeouts. A saga has one at most.
const maxSagaTimeouts = 100

// maxTransitions bounds the history of a saga.
const maxTransitions = 1000

// Saga is a saga instance with its history, as a report shows it.
type Saga struct {
	Name        string          `json:"name"`
	Key         string          `json:"key"`
	Version     int             `json:"version"` // of the definition that it began with or was last changed by
	State       string          `json:"state"`
	Revision    int64           `json:"revision"`            // the number of its transitions, the beginning included
	StartedAt   time.Time       `json:"started_at,omitzero"` // zero: it has not begun, but events wait for it
	ChangedAt   time.Time       `json:"changed_at,omitzero"`
	FinishedAt  time.Time       `json:"finished_at,omitzero"` // zero: it has not finished
	Data        json.RawMessage `json:"data"`
	Timeouts    []Timeout       `json:"timeouts"` // the deadline of its state, if one is armed
	Transitions []Transition    `json:"history"`  // the newest 1,000, the oldest of them first; that of revision 1 is the beginning
	Waiting     []WaitingEvent  `json:"waiting"`  // its waiting events, the oldest first, at most 1,000
}

// Transition is a change of a saga's state.
type Transition struct {
	Revision  int64     `json:"revision"` // after the transition
	From      string    `json:"from"`
	To        string    `json:"to"`
	CauseType string    `json:"cause_type"`        // the event's type; "saga.begin" for the beginning
	CauseID   uuid.UUID `json:"cause_id,omitzero"` // the event's id; zero: the application called the engine itself
	At        time.Time `json:"at"`
}

// SagaFilter selects sagas.
type SagaFilter struct {
	Key  string // required
	Name string // empty: sagas of any name
}

// Sagas returns the sagas of a key, the oldest first, followed by those that have not begun but for which events wait. No
// saga is no error.
func (o *Operator) Sagas(ctx context.Context, f SagaFilter) (list []Saga, err error) {
	if f.Key == "" {
		return nil, valid.Field("operate.SagaFilter.Key", "missing")
	}
	err = o.read(ctx, func(s snapshot) error {
		list, err = s.sagas(ctx, f, true)
		return err
	})
	if err != nil {
		return nil, printable.Errorf("read sagas of %s: %w", f.Key, err)
	}
	return list, nil
}

// sagas reads the sagas of a key. bodies says whether the waiting events have theirs.
func (s snapshot) sagas(ctx context.Context, f SagaFilter, bodies bool) ([]Saga, error) {
	list, err := collect(ctx, s, "Sagas", func(row pgx.CollectableRow, v *Saga) error {
		var finished *time.Time
		err := row.Scan(&v.Name, &v.Key, &v.Version, &v.State, &v.Data, &v.Revision, &v.StartedAt, &v.ChangedAt, &finished)
		v.FinishedAt = orZero(finished)
		return err
	}, f.Key, f.Name, maxRows)
	if err != nil {
		return nil, err
	}
	type row struct {
		name string
		Transition
	}
	history, err := collect(ctx, s, "SagaHistory", func(r pgx.CollectableRow, v *row) error {
		var cause *uuid.UUID
		err := r.Scan(&v.name, &v.Revision, &v.From, &v.To, &v.CauseType, &cause, &v.At)
		if cause != nil {
			v.CauseID = *cause
		}
		return err
	}, f.Key, f.Name, maxRows, maxTransitions)
	if err != nil {
		return nil, err
	}
	waiting, err := s.waitingEvents(ctx, WaitingFilter{Saga: f.Name, Key: f.Key}, bodies)
	if err != nil {
		return nil, err
	}
	find := func(name string) int { return slices.IndexFunc(list, func(v Saga) bool { return v.Name == name }) }
	for _, h := range history {
		if i := find(h.name); i >= 0 {
			list[i].Transitions = append(list[i].Transitions, h.Transition)
		}
	}
	for _, w := range waiting {
		if find(w.Saga) < 0 {
			list = append(list, Saga{Name: w.Saga, Key: f.Key})
		}
		i := find(w.Saga)
		list[i].Waiting = append(list[i].Waiting, w)
	}
	for i := range list {
		// The key of a saga's timeouts is made by package saga.
		if list[i].Timeouts, err = s.timeouts(ctx, list[i].Name+"/"+f.Key, maxSagaTimeouts); err != nil {
			return nil, err
		}
	}
	return list, nil
}
