package inbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rocketflow/rocketflow"
)

// DueEvent is a parked event that TakeDue has claimed.
type DueEvent struct {
	ID       uuid.UUID
	Stream   rocketflow.Stream // source, topic and subject, also of an event without order
	Sequence int64             // 0: it has no order
	Timeout  bool              // it is the event of a timeout
}

// Look says how TakeDue looks for due events.
type Look struct {
	Routes   []Route       // that the process has handlers for
	Limit    int           // the maximum number of events
	TakenFor time.Duration // after which they are due again
	Longest  time.Duration // the maximum of Found.Next
	Resumed  bool          // events that were parked because of a pause that has ended become due first
}

// Found is what TakeDue has found.
type Found struct {
	Due    []DueEvent
	Next   time.Duration // until the next event is due
	Pauses Pauses        // of the consumer
	More   bool          // more events of a pause that has ended may have to become due
}

// wakePage is how many events of a pause that has ended become due at once.
const wakePage = 1000

// TakeDue claims parked events that are due. Events that wait for a handler and whose route is among the routes become due first. While
// the whole consumer is paused, none is claimed.
func (c Consumer) TakeDue(ctx context.Context, db DB, look Look) (found Found, err error) {
	found.Next = look.Longest
	topics, types := routeColumns(look.Routes)
	var q pgx.Batch
	c.queuePauses(&q, &found.Pauses)
	if look.Resumed {
		q.Queue(c.sql.Get("WakePaused"), c.name, int64(wakePage)).Exec(func(tag pgconn.CommandTag) error {
			found.More = tag.RowsAffected() == wakePage
			return nil
		})
	}
	q.Queue(c.sql.Get("WakeUnhandled"), c.name, topics, types, int64(look.Limit))
	q.Queue(c.sql.Get("TakeDue"), c.name, int64(look.Limit), look.TakenFor.Seconds()).Query(func(rows pgx.Rows) error {
		var id string
		var d DueEvent
		_, err := pgx.ForEachRow(rows, []any{&id, &d.Stream.Source, &d.Stream.Topic, &d.Stream.Subject, &d.Sequence, &d.Timeout}, func() error {
			d.ID = uuid.MustParse(id)
			found.Due = append(found.Due, d)
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
		found.Next = min(found.Next, max(0, time.Duration(wait*float64(time.Second)))+time.Millisecond)
		return err
	})
	if err := db.SendBatch(ctx, &q).Close(); err != nil {
		return Found{}, fmt.Errorf("take due events: %w", err)
	}
	return found, nil
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
