package inbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Route selects a handler of a consumer: a topic and a type of event.
type Route struct{ Topic, Type string }

// Registration is what a consumer records about itself when it starts.
type Registration struct {
	Group             string // at the broker
	InboxRetention    time.Duration
	PositionRetention time.Duration
	Routes            []Route // those that it has handlers for
	// BeginNow and BeginAt say where the consumer begins in topics that it reads for the first time: now, at BeginAt, or, if
	// that is nil, with the oldest event.
	BeginNow bool
	BeginAt  *time.Time
}

// Topic is a topic that a consumer reads.
type Topic struct {
	Born  time.Time // when the consumer first read it
	Begin time.Time // events recorded before are settled without a handler; zero: none
}

// Register records a consumer, and returns its topics and all routes that any process has recorded for it.
func (c Consumer) Register(ctx context.Context, db DB, r Registration) (topics map[string]Topic, recorded []Route, err error) {
	names, types := routeColumns(r.Routes)
	topics = map[string]Topic{}
	var q pgx.Batch
	q.Queue(c.sql.Get("Register"), c.name, r.InboxRetention.Seconds(), r.PositionRetention.Seconds(), names, types, r.BeginNow, r.BeginAt, r.Group)
	q.Queue(c.sql.Get("Topics"), c.name).Query(func(rows pgx.Rows) error {
		var name string
		var born time.Time
		var begin *time.Time
		_, err := pgx.ForEachRow(rows, []any{&name, &born, &begin}, func() error {
			t := Topic{Born: born}
			if begin != nil {
				t.Begin = *begin
			}
			topics[name] = t
			begin = nil
			return nil
		})
		return err
	})
	q.Queue(c.sql.Get("Recorded"), c.name).Query(func(rows pgx.Rows) (err error) {
		recorded, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Route])
		return err
	})
	if err := db.SendBatch(ctx, &q).Close(); err != nil {
		return nil, nil, fmt.Errorf("register consumer %s: %w", c.name, err)
	}
	return topics, recorded, nil
}

// QueueRecorded writes to recorded which of the routes have a handler in some process.
func (c Consumer) QueueRecorded(q *pgx.Batch, routes []Route, recorded map[Route]bool) {
	topics, types := routeColumns(routes)
	q.Queue(c.sql.Get("RecordedOf"), c.name, topics, types).Query(func(rows pgx.Rows) error {
		var r Route
		_, err := pgx.ForEachRow(rows, []any{&r.Topic, &r.Type}, func() error { recorded[r] = true; return nil })
		return err
	})
}

// Retire deletes the record of a handler, and makes the events that wait for it due: they are settled without a handler then.
// It returns how many events waited, and false if there was no such record.
func (c Consumer) Retire(ctx context.Context, tx pgx.Tx, r Route) (waited int64, retired bool, err error) {
	tag, err := tx.Exec(ctx, c.sql.Get("Retire"), c.name, r.Topic, r.Type)
	if err != nil {
		return 0, false, err
	}
	retired = tag.RowsAffected() > 0
	tag, err = tx.Exec(ctx, c.sql.Get("WakeRetired"), c.name, r.Topic, r.Type)
	return tag.RowsAffected(), retired, err
}

// routeColumns returns routes as two columns.
func routeColumns(routes []Route) (topics, types []string) {
	topics, types = make([]string, len(routes)), make([]string, len(routes))
	for i, r := range routes {
		topics[i], types[i] = r.Topic, r.Type
	}
	return topics, types
}
