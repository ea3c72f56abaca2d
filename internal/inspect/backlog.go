package inspect

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Backlog is what is not done yet. Counts end at MaxCount.
type Backlog struct {
	Owed     []Owed        `json:"owed"`
	Mark     string        `json:"mark"`      // of the sweep: a transaction id below which nothing is owed
	MarkedAt time.Time     `json:"marked_at"` // when the mark last moved; on a database at rest it doesn't
	Parked   []ParkedCount `json:"parked"`
	Timeouts TimeoutCount  `json:"timeouts"`
	Waiting  []WaitCount   `json:"waiting_for_sagas"`
}

// WaitCount counts the events that wait for sagas of a name.
type WaitCount struct {
	Saga   string    `json:"saga"`
	Status string    `json:"status"`
	Events int64     `json:"events"`
	Oldest time.Time `json:"oldest"`
}

// Owed counts the events of a topic that the broker hasn't confirmed.
type Owed struct {
	Topic  string    `json:"topic"`
	Events int64     `json:"events"`
	Oldest time.Time `json:"oldest"`
}

// ParkedCount counts the events that a consumer has parked for a reason.
type ParkedCount struct {
	Consumer string    `json:"consumer"`
	Reason   State     `json:"reason"`
	Events   int64     `json:"events"`
	Oldest   time.Time `json:"oldest"`
	NextAt   time.Time `json:"next_at,omitzero"` // the next attempt; zero: none is planned
}

// TimeoutCount counts armed timeouts.
type TimeoutCount struct {
	Armed     int64     `json:"armed"`
	Overdue   int64     `json:"overdue"`
	Stuck     int64     `json:"stuck"`               // overdue, sent again and again, and handled by nobody
	OldestDue time.Time `json:"oldest_due,omitzero"` // of the overdue; zero: none
	NextDue   time.Time `json:"next_due,omitzero"`   // of those not yet due; zero: none
}

// Backlog counts what waits.
func (r *Reader) Backlog(ctx context.Context) (*Backlog, error) {
	var b Backlog
	var seen string // below this transaction all is acked, but for these
	var again []string
	if err := r.tx.QueryRow(ctx, r.sql.Get("Sweep")).Scan(&b.Mark, &seen, &again, &b.MarkedAt); err != nil {
		return nil, fmt.Errorf("read sweep: %w", err)
	}
	var err error
	b.Owed, err = collect(ctx, r, "Owed", func(row pgx.CollectableRow, v *Owed) error {
		return row.Scan(&v.Topic, &v.Events, &v.Oldest)
	}, seen, again, MaxCount)
	if err != nil {
		return nil, fmt.Errorf("count owed events: %w", err)
	}
	b.Parked, err = collect(ctx, r, "Parked", func(row pgx.CollectableRow, v *ParkedCount) error {
		var next *time.Time
		err := row.Scan(&v.Consumer, &v.Reason, &v.Events, &v.Oldest, &next)
		v.NextAt = orZero(next)
		return err
	}, maxRows, MaxCount)
	if err != nil {
		return nil, fmt.Errorf("count parked events: %w", err)
	}
	var oldest, next *time.Time
	t := &b.Timeouts
	if err := r.tx.QueryRow(ctx, r.sql.Get("Armed"), MaxCount).Scan(&t.Armed, &t.Overdue, &t.Stuck, &oldest, &next); err != nil {
		return nil, fmt.Errorf("count timeouts: %w", err)
	}
	t.OldestDue, t.NextDue = orZero(oldest), orZero(next)
	b.Waiting, err = collect(ctx, r, "WaitingForSagas", func(row pgx.CollectableRow, v *WaitCount) error {
		return row.Scan(&v.Saga, &v.Status, &v.Events, &v.Oldest)
	}, MaxCount)
	if err != nil {
		return nil, fmt.Errorf("count events that wait for sagas: %w", err)
	}
	return &b, nil
}
