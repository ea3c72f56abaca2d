package inbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
)

// DueEvent is a parked event that TakeDue has claimed.
type DueEvent struct {
	ID       uuid.UUID
	Stream   rocketflow.Stream // source, topic and subject, also of an event without order
	Sequence int64             // 0: it has no order
	Timeout  bool              // it is the event of a timeout
}

// TakeDue claims up to limit parked events that are due, for takenFor, after which they are due again. It returns them and the
// time until the next one is due, at most longest. Events that wait for a handler and whose route is among routes become due
// first.
func (c Consumer) TakeDue(ctx context.Context, db DB, routes []Route, limit int, takenFor, longest time.Duration) (due []DueEvent, next time.Duration, err error) {
	next = longest
	topics, types := routeColumns(routes)
	var q pgx.Batch
	q.Queue(c.sql.Get("WakeUnhandled"), c.name, topics, types, int64(limit))
	q.Queue(c.sql.Get("TakeDue"), c.name, int64(limit), takenFor.Seconds()).Query(func(rows pgx.Rows) error {
		var id string
		var d DueEvent
		_, err := pgx.ForEachRow(rows, []any{&id, &d.Stream.Source, &d.Stream.Topic, &d.Stream.Subject, &d.Sequence, &d.Timeout}, func() error {
			d.ID = uuid.MustParse(id)
			due = append(due, d)
			return nil
		})
		return err
	})
	q.Queue(c.sql.Get("NextDue"), c.name).QueryRow(func(row pgx.Row) error {
		var wait float64
		err := row.Scan(&wait)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		next = min(next, max(0, time.Duration(wait*float64(time.Second)))+time.Millisecond)
		return err
	})
	if err := db.SendBatch(ctx, &q).Close(); err != nil {
		return nil, 0, fmt.Errorf("take due events: %w", err)
	}
	return due, next, nil
}

// PutBack releases the claim of events that TakeDue returned: they are due again after a time.
func (c Consumer) PutBack(ctx context.Context, db DB, keys []Key, after time.Duration) error {
	sources, ids := make([]string, len(keys)), make([]string, len(keys))
	for i, k := range keys {
		sources[i], ids[i] = CleanKey(k.Source), k.ID.String()
	}
	if _, err := db.Exec(ctx, c.sql.Get("PutBack"), c.name, sources, ids, after.Seconds()); err != nil {
		return fmt.Errorf("put due events back: %w", err)
	}
	return nil
}

// WakeStranded makes due the parked events that wait behind one whose row was deleted by hand, and returns their number.
func (c Consumer) WakeStranded(ctx context.Context, db DB) (int64, error) {
	tag, err := db.Exec(ctx, c.sql.Get("WakeStranded"), c.name)
	if err != nil {
		return 0, fmt.Errorf("wake stranded events: %w", err)
	}
	return tag.RowsAffected(), nil
}
