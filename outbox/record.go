package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/stored"
)

// record inserts the rows of what is pending and not recorded yet, in one round trip, and completes the events with
// what the database assigned.
func (t *tx) record(ctx context.Context) error {
	events := t.pending.events[t.pending.recorded:]
	if len(events) == 0 {
		return nil
	}
	r := t.outbox.current()
	if r == nil {
		return ErrNotStarted
	}
	sql, args, err := t.rows(events)
	if err != nil {
		return err
	}
	rows, err := t.Query(ctx, sql, args...)
	if err == nil {
		err = complete(rows, events)
	}
	if err != nil {
		return fmt.Errorf("record events: %w", err)
	}
	t.recorded(r, events)
	return nil
}

// recordAndCommit does both in one round trip, and that of BEGIN, if nothing was sent yet. open tells that the
// transaction is still open, to be rolled back.
func (t *tx) recordAndCommit(ctx context.Context, r *running) (open bool, err error) {
	events := t.pending.events
	sql, args, err := t.rows(events)
	if err != nil {
		return true, err
	}
	batch := &pgx.Batch{}
	batch.Queue(sql, args...).Query(func(rows pgx.Rows) error { return complete(rows, events) })
	if open, err := t.own.commitWith(ctx, batch); err != nil {
		if open {
			err = fmt.Errorf("record events: %w", err)
		}
		return open, err
	}
	t.recorded(r, events)
	return false, nil
}

func (t *tx) recorded(r *running, events []rocketflow.Event) {
	for i := range events {
		events[i].Database = r.database
	}
	t.pending.recorded = len(t.pending.events)
	t.outbox.listener.Recorded(events)
}

// rows returns the statement that inserts events. It answers as complete expects.
func (t *tx) rows(events []rocketflow.Event) (sql string, args []any, err error) {
	headers := make([]*string, len(events))
	for i, e := range events {
		if headers[i], err = stored.Headers(e); err != nil {
			return "", nil, fmt.Errorf("record events: %w", err)
		}
	}
	source := t.outbox.config.Source
	if len(events) == 1 && !t.pending.unordered[t.pending.recorded] {
		e := events[0]
		return t.outbox.queries.Get("RecordOne"), []any{source, [16]byte(e.ID), e.Topic, e.Type, e.Subject, e.ContentType, headers[0], stored.Body(e)}, nil
	}
	n := len(events)
	ids, topics, types, subjects := make([]uuid.UUID, n), make([]string, n), make([]string, n), make([]string, n)
	ordered, contentTypes, bodies := make([]bool, n), make([]string, n), make([][]byte, n)
	for i, e := range events {
		ids[i], topics[i], types[i], subjects[i] = e.ID, e.Topic, e.Type, e.Subject
		ordered[i], contentTypes[i], bodies[i] = !t.pending.unordered[t.pending.recorded+i], e.ContentType, stored.Body(e)
	}
	return t.outbox.queries.Get("Record"), []any{source, ids, topics, types, subjects, ordered, contentTypes, headers, bodies}, nil
}

// complete reads what the database assigned.
func complete(rows pgx.Rows, events []rocketflow.Event) error {
	defer rows.Close()
	places := make(map[uuid.UUID]int, len(events))
	for i, e := range events {
		places[e.ID] = i
	}
	var (
		id                 uuid.UUID
		sequence, previous int64
		at                 time.Time
		synced             *string
	)
	for rows.Next() {
		if err := rows.Scan(&id, &sequence, &previous, &at, &synced); err != nil {
			return err
		}
		e := &events[places[id]]
		e.Sequence, e.Previous, e.Time = sequence, previous, at
	}
	return rows.Err()
}
