package operate

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

//go:embed saga_page.sql
var sagaPageSQL string

// SagaPageFilter selects sagas. A saga is selected if it matches all fields that are set.
type SagaPageFilter struct {
	Name, State string
	Finished    *bool  // only finished ones, or only running ones
	After       Cursor // of the page before
	Limit       int    // the maximum number of sagas. Defaults to 50.
}

// SagaRow is a saga of a list.
type SagaRow struct {
	Name       string    `json:"name"`
	Key        string    `json:"key"`
	Version    int       `json:"version"`
	State      string    `json:"state"`
	Revision   int64     `json:"revision"`
	StartedAt  time.Time `json:"started_at"`
	ChangedAt  time.Time `json:"changed_at"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
}

// SagaPage is a page of sagas.
type SagaPage struct {
	Sagas []SagaRow `json:"sagas"` // by name and key
	Next  Cursor    `json:"next,omitempty"`
	// Partial is set if the page is short because enough rows were looked at for it: Next continues.
	Partial bool `json:"partial,omitempty"`
}

// SagaPage lists sagas by name and key. It looks at up to 5,000 rows for a page.
func (o *Operator) SagaPage(ctx context.Context, f SagaPageFilter) (*SagaPage, error) {
	if err := checkLimit("SagaPageFilter", f.Limit); err != nil {
		return nil, err
	}
	if f.Limit == 0 {
		f.Limit = defaultPage
	}
	key, err := f.After.key("SagaPageFilter", f.Name, "")
	if err != nil {
		return nil, err
	}
	p := &SagaPage{}
	var scanned int64
	var lastName, lastKey *string
	err = o.read(ctx, func(s snapshot) error {
		list, err := collect(ctx, s, "SagaPage", func(row pgx.CollectableRow, v *SagaRow) error {
			var name, key, state *string
			var version *int
			var revision *int64
			var started, changed, finished *time.Time
			err := row.Scan(&name, &key, &version, &state, &revision, &started, &changed, &finished, &scanned, &lastName, &lastKey)
			if err == nil && name != nil {
				*v = SagaRow{*name, *key, *version, *state, *revision, *started, *changed, orZero(finished)}
			}
			return err
		}, key[0], key[1], f.Name, f.State, f.Finished, f.Limit+1, maxScan)
		if err != nil {
			return err
		}
		if len(list) == 1 && list[0].StartedAt.IsZero() { // the row that says how far it went
			list = nil
		}
		p.Sagas, p.Next = page(list, int64(f.Limit), func(v SagaRow) Cursor { return newCursor(v.Name, v.Key) })
		if p.Next == "" && scanned == maxScan {
			p.Next, p.Partial = newCursor(*lastName, *lastKey), true
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list sagas: %w", err)
	}
	return p, nil
}

// MaxTransitions is how many recorded transitions SagaTransitions looks at.
const MaxTransitions = 5_000

// maxTransitionKinds bounds the kinds of transitions that SagaTransitions returns.
const maxTransitionKinds = 500

// TransitionCount counts the transitions of sagas from one state to another by one type of event.
type TransitionCount struct {
	From  string `json:"from"` // empty: the beginning
	To    string `json:"to"`
	Cause string `json:"cause"` // as Transition.CauseType
	Count int64  `json:"count"`
}

// SagaTransitions counts the recorded transitions of the sagas with a name, in the order of their states. It looks at those of the last
// sagas by key: at most MaxTransitions.
func (o *Operator) SagaTransitions(ctx context.Context, name string) (list []TransitionCount, err error) {
	err = o.read(ctx, func(s snapshot) error {
		list, err = collect(ctx, s, "SagaTransitions", func(row pgx.CollectableRow, c *TransitionCount) error {
			return row.Scan(&c.From, &c.To, &c.Cause, &c.Count)
		}, name, MaxTransitions, maxTransitionKinds)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("count transitions of sagas: %w", err)
	}
	return list, nil
}

// Limits of EventsOut.
const (
	// MaxEventsOut is how many events EventsOut returns at most.
	MaxEventsOut = 200

	maxCauses   = 100
	maxOfACause = 50
)

// EventOut is an event that a handler, such as a transition of a saga, published while it handled another.
type EventOut struct {
	EventID    uuid.UUID `json:"event_id"`
	RecordedAt time.Time `json:"recorded_at"`
	Cause      uuid.UUID `json:"cause"`              // the event that was handled
	Consumer   string    `json:"consumer,omitempty"` // of the handler
	Type       string    `json:"type"`
	Topic      string    `json:"topic"`
	Subject    string    `json:"subject,omitempty"`
}

// EventsOut lists the events that the service's handlers published while they handled one of the last 100 of some events, as far as the
// outbox keeps them: in the order in which they were published, up to 50 of each and MaxEventsOut altogether. With the events of its
// transitions, these are what a saga has published.
func (o *Operator) EventsOut(ctx context.Context, causes []uuid.UUID) (list []EventOut, err error) {
	ids := make([]string, 0, maxCauses)
	for _, id := range causes[max(len(causes)-maxCauses, 0):] {
		ids = append(ids, id.String())
	}
	err = o.read(ctx, func(s snapshot) error {
		list, err = collect(ctx, s, "EventsOut", func(row pgx.CollectableRow, e *EventOut) error {
			return row.Scan(&e.EventID, &e.RecordedAt, &e.Cause, &e.Consumer, &e.Type, &e.Topic, &e.Subject)
		}, ids, maxOfACause, MaxEventsOut)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list events that were published while others were handled: %w", err)
	}
	return list, nil
}

// TimeoutPageFilter selects armed timeouts.
type TimeoutPageFilter struct {
	Late  bool   // only those that are due and have not fired
	After Cursor // of the page before
	Limit int    // the maximum number of timeouts. Defaults to 50.
}

// TimeoutPage is a page of armed timeouts.
type TimeoutPage struct {
	Timeouts []Timeout `json:"timeouts"` // the next due first
	Next     Cursor    `json:"next,omitempty"`
}

// TimeoutPage lists armed timeouts.
func (o *Operator) TimeoutPage(ctx context.Context, f TimeoutPageFilter) (*TimeoutPage, error) {
	if err := checkLimit("TimeoutPageFilter", f.Limit); err != nil {
		return nil, err
	}
	if f.Limit == 0 {
		f.Limit = defaultPage
	}
	key, err := f.After.key("TimeoutPageFilter", "-infinity", "", "")
	if err != nil {
		return nil, err
	}
	if _, err := time.Parse(time.RFC3339Nano, key[0]); err != nil && key[0] != "-infinity" {
		return nil, cursorError("TimeoutPageFilter")
	}
	p := &TimeoutPage{}
	err = o.read(ctx, func(s snapshot) error {
		list, err := collect(ctx, s, "TimeoutPage", func(row pgx.CollectableRow, v *Timeout) error {
			var stuck *time.Time
			err := row.Scan(&v.Key, &v.Name, &v.EventID, &v.DueAt, &v.ArmedAt, &v.HandedOver, &v.Sends, &stuck, &v.Topic, &v.Type, &v.Subject)
			v.StuckAt = orZero(stuck)
			return err
		}, key[0], key[1], key[2], f.Late, f.Limit+1)
		p.Timeouts, p.Next = page(list, int64(f.Limit), func(v Timeout) Cursor {
			return newCursor(v.DueAt.UTC().Format(time.RFC3339Nano), v.Key, v.Name)
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list timeouts: %w", err)
	}
	return p, nil
}
