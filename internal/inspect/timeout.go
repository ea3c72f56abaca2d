package inspect

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Timeout is an armed timeout.
type Timeout struct {
	Key        string    `json:"key"`
	Name       string    `json:"name"`
	EventID    uuid.UUID `json:"event_id"` // of its firing
	DueAt      time.Time `json:"due_at"`
	ArmedAt    time.Time `json:"armed_at"`
	HandedOver bool      `json:"handed_over"`       // the broker holds a timer for it
	Sends      int       `json:"sends"`             // how often the sweep sent the event because it is overdue
	StuckAt    time.Time `json:"stuck_at,omitzero"` // when it was reported that nobody handles the event; zero: it wasn't
	Topic      string    `json:"topic"`
	Type       string    `json:"type"`
	Subject    string    `json:"subject"`
}

// Timeouts returns armed timeouts, the next due first: those of a key or, if it is empty, of all.
func (r *Reader) Timeouts(ctx context.Context, key string, limit int) ([]Timeout, error) {
	query, args := "TimeoutsNext", []any{limit}
	if key != "" {
		query, args = "TimeoutsOf", append(args, key)
	}
	list, err := collect(ctx, r, query, func(row pgx.CollectableRow, v *Timeout) error {
		var stuck *time.Time
		err := row.Scan(&v.Key, &v.Name, &v.EventID, &v.DueAt, &v.ArmedAt, &v.HandedOver, &v.Sends, &stuck, &v.Topic, &v.Type, &v.Subject)
		v.StuckAt = orZero(stuck)
		return err
	}, args...)
	if err != nil {
		return nil, fmt.Errorf("read timeouts: %w", err)
	}
	return list, nil
}
