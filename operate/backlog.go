package operate

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

//go:embed backlog.sql
var backlogSQL string

// Backlog is a report on the unfinished work of a schema. Counts end at MaxCount.
type Backlog struct {
	Owed []OwedCount `json:"owed"` // by topic
	// Watermark is the transaction id up to which all events are known to be acknowledged or rejected.
	Watermark string `json:"watermark"`
	// WatermarkMovedAt is when the watermark last moved. It doesn't move on a database without writes, nor while a
	// transaction is open for long. If it doesn't move otherwise and events are owed, no process sweeps.
	WatermarkMovedAt time.Time      `json:"watermark_moved_at"`
	Parked           []ParkedCount  `json:"parked"` // by consumer and reason
	Timeouts         TimeoutCount   `json:"timeouts"`
	Waiting          []WaitingCount `json:"waiting_for_sagas"` // by saga and status
}

// OwedCount counts the owed events of a topic, rejected ones included.
type OwedCount struct {
	Topic  string    `json:"topic"`
	Events int64     `json:"events"`
	Oldest time.Time `json:"oldest"` // when the oldest was recorded
}

// ParkedCount counts the events that a consumer has parked for one reason. Of a consumer, the MaxCount dead letters that were parked first
// are counted, and as many of its other parked events.
type ParkedCount struct {
	Consumer string        `json:"consumer"`
	Reason   HandlingState `json:"reason"`
	Events   int64         `json:"events"`
	Oldest   time.Time     `json:"oldest"`           // when the oldest of them was parked
	NextAt   time.Time     `json:"next_at,omitzero"` // of the next attempt; zero: none is planned
}

// TimeoutCount counts armed timeouts.
type TimeoutCount struct {
	Armed     int64     `json:"armed"`               // all of them
	Overdue   int64     `json:"overdue"`             // those that are due and have not fired
	Stuck     int64     `json:"stuck"`               // those that are overdue, and were sent many times without being handled
	OldestDue time.Time `json:"oldest_due,omitzero"` // of the overdue ones; zero: there are none
	NextDue   time.Time `json:"next_due,omitzero"`   // of those that are not due yet; zero: there are none
}

// WaitingCount counts the events that wait for sagas of one name: all that failed or expired, and the others of those that came first.
type WaitingCount struct {
	Saga   string        `json:"saga"`
	Status WaitingStatus `json:"status"`
	Events int64         `json:"events"`
	Oldest time.Time     `json:"oldest"` // when the oldest came
}

// Backlog counts what is owed to the broker, parked by consumers, armed, and waiting for sagas.
func (o *Operator) Backlog(ctx context.Context) (*Backlog, error) {
	var b Backlog
	err := o.read(ctx, func(s snapshot) error {
		if err := s.openWork(ctx, &b, MaxCount); err != nil {
			return err
		}
		return s.parkedByConsumer(ctx, &b)
	})
	if err != nil {
		return nil, err
	}
	return &b, nil
}

// openWork counts, up to most, what is owed, armed and waiting.
func (s snapshot) openWork(ctx context.Context, b *Backlog, most int) error {
	var seen string // the transaction id below which all events are acknowledged or rejected, except those of the transactions in again
	var again []string
	if err := s.tx.QueryRow(ctx, s.sql.Get("SweepState")).Scan(&b.Watermark, &seen, &again, &b.WatermarkMovedAt); err != nil {
		return fmt.Errorf("read sweep state: %w", err)
	}
	var err error
	b.Owed, err = collect(ctx, s, "OwedByTopic", func(row pgx.CollectableRow, v *OwedCount) error {
		return row.Scan(&v.Topic, &v.Events, &v.Oldest)
	}, seen, again, most)
	if err != nil {
		return fmt.Errorf("count owed events: %w", err)
	}
	var oldest, next *time.Time
	t := &b.Timeouts
	if err := s.tx.QueryRow(ctx, s.sql.Get("TimeoutCounts"), most).Scan(&t.Armed, &t.Overdue, &t.Stuck, &oldest, &next); err != nil {
		return fmt.Errorf("count timeouts: %w", err)
	}
	t.OldestDue, t.NextDue = orZero(oldest), orZero(next)
	b.Waiting, err = collect(ctx, s, "WaitingBySaga", func(row pgx.CollectableRow, v *WaitingCount) error {
		return row.Scan(&v.Saga, &v.Status, &v.Events, &v.Oldest)
	}, most)
	if err != nil {
		return fmt.Errorf("count waiting events: %w", err)
	}
	return nil
}

// parkedByConsumer counts what is parked, by consumer and reason.
func (s snapshot) parkedByConsumer(ctx context.Context, b *Backlog) (err error) {
	b.Parked, err = collect(ctx, s, "ParkedByConsumer", func(row pgx.CollectableRow, v *ParkedCount) error {
		var next *time.Time
		err := row.Scan(&v.Consumer, &v.Reason, &v.Events, &v.Oldest, &next)
		v.NextAt = orZero(next)
		return err
	}, maxRows, MaxCount)
	if err != nil {
		return fmt.Errorf("count parked events: %w", err)
	}
	return nil
}
