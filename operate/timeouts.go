package operate

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

//go:embed timeouts.sql
var timeoutsSQL string

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
	list, err := collect(ctx, s, query, func(row pgx.CollectableRow, v *Timeout) error {
		var stuck *time.Time
		err := row.Scan(&v.Key, &v.Name, &v.EventID, &v.DueAt, &v.ArmedAt, &v.HandedOver, &v.Sends, &stuck, &v.Topic, &v.Type, &v.Subject)
		v.StuckAt = orZero(stuck)
		return err
	}, args...)
	if err != nil {
		return nil, fmt.Errorf("list timeouts: %w", err)
	}
	return list, nil
}
