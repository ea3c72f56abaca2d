package operate

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

//go:embed timeouts.sql
var timeoutsSQL string

// maxArmedByEvent is how many armed timeouts, those that are due first, are searched for an event: somebody who has an id has it from a
// message that was sent or a line of a log, so the timeout is due, or was handed over.
const maxArmedByEvent = int64(10_000)

// Timeout is an armed timeout.
type Timeout struct {
	Key        string    `json:"key"`
	Name       string    `json:"name"`
	EventID    uuid.UUID `json:"event_id"` // of the event that fires it
	DueAt      time.Time `json:"due_at"`
	ArmedAt    time.Time `json:"armed_at"`
	HandedOver bool      `json:"handed_over"`       // the broker holds a timer for it
	Sends      int       `json:"sends"`             // how often the sweep has sent the event because it is overdue
	StuckAt    time.Time `json:"stuck_at,omitzero"` // when it was reported that the event isn't handled; zero: not stuck
	Topic      string    `json:"topic"`
	Type       string    `json:"type"`
	Subject    string    `json:"subject"`
}

// TimeoutFilter selects armed timeouts.
type TimeoutFilter struct {
	Key   string // empty: timeouts of all keys. The key of a saga's deadline is the name and key of the saga: order/4711
	Limit int    // the maximum number of timeouts. Defaults to DefaultLimit.
}

// Timeouts returns armed timeouts, the next due first.
func (o *Operator) Timeouts(ctx context.Context, f TimeoutFilter) (list []Timeout, err error) {
	if err := checkLimit("TimeoutFilter", f.Limit); err != nil {
		return nil, err
	}
	err = o.read(ctx, func(s snapshot) error {
		list, err = s.timeouts(ctx, f.Key, listLimit(f.Limit))
		return err
	})
	return list, err
}

func (s snapshot) timeouts(ctx context.Context, key string, limit int64) ([]Timeout, error) {
	query, args := "TimeoutsNext", []any{limit}
	if key != "" {
		query, args = "TimeoutsOf", append(args, key)
	}
	list, err := collect(ctx, s, query, func(row pgx.CollectableRow, v *Timeout) error { return v.scan(row) }, args...)
	if err != nil {
		return nil, fmt.Errorf("list timeouts: %w", err)
	}
	return list, nil
}

func (t *Timeout) scan(row pgx.Row) error {
	var stuck *time.Time
	err := row.Scan(&t.Key, &t.Name, &t.EventID, &t.DueAt, &t.ArmedAt, &t.HandedOver, &t.Sends, &stuck, &t.Topic, &t.Type, &t.Subject)
	t.StuckAt = orZero(stuck)
	return err
}

// armedByEvent returns the timeout that is armed with an event, if it is among the first maxArmedByEvent that are due; nil: none is.
func (s snapshot) armedByEvent(ctx context.Context, event uuid.UUID) (*Timeout, error) {
	v := &Timeout{}
	err := v.scan(s.tx.QueryRow(ctx, s.sql.Get("ArmedByEvent"), event.String(), maxArmedByEvent))
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("armed timeout: %w", err)
	}
	return v, nil
}
