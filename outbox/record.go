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
func (s *transaction) record(ctx context.Context) error {
	events := s.pending.events[s.pending.recorded:]
	if len(events) == 0 {
		return nil
	}
	r := s.outbox.current()
	if r == nil {
		return ErrNotStarted
	}
	sql, args, err := s.outbox.rows(events, s.pending.unordered)
	if err != nil {
		return err
	}
	rows, err := s.base.Query(ctx, sql, args...)
	if err == nil {
		err = complete(rows, events)
		rows.Close()
	}
	if err != nil {
		return fmt.Errorf("record events: %w", err)
	}
	s.recorded(r, events)
	return nil
}

// recordAndCommit does both in one round trip, and that of BEGIN, if nothing was sent yet. open tells that the
// transaction is still open, to be rolled back.
func (s *transaction) recordAndCommit(ctx context.Context, r *running) (open bool, err error) {
	events := s.pending.events
	sql, args, err := s.outbox.rows(events, s.pending.unordered)
	if err != nil {
		return true, err
	}
	batch := &pgx.Batch{}
	batch.Queue(sql, args...).Query(func(rows pgx.Rows) error {
		defer rows.Close()
		return complete(rows, events)
	})
	if open, err := s.own.commitWith(ctx, batch); err != nil {
		if open {
			err = fmt.Errorf("record events: %w", err)
		}
		return open, err
	}
	s.recorded(r, events)
	return false, nil
}

func (s *transaction) recorded(r *running, events []rocketflow.Event) {
	for i := range events {
		events[i].Database = r.database
	}
	s.pending.recorded = len(s.pending.events)
	s.outbox.listener.Recorded(events)
}

// rows returns the statement that inserts events. It answers as complete expects.
func (o *Outbox) rows(events []rocketflow.Event, unordered map[uuid.UUID]bool) (sql string, args []any, err error) {
	headers := make([]*string, len(events))
	for i, e := range events {
		if headers[i], err = stored.Headers(e); err != nil {
			return "", nil, fmt.Errorf("record events: %w", err)
		}
	}
	source := o.config.Source
	if e := events[0]; len(events) == 1 && !unordered[e.ID] {
		return o.queries.Get("RecordOne"), []any{source, e.ID.String(), e.Topic, e.Type, e.Subject, e.ContentType, headers[0], stored.Body(e)}, nil
	}
	n := len(events)
	ids, topics, types, subjects := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	ordered, contentTypes, bodies := make([]bool, n), make([]string, n), make([][]byte, n)
	for i, e := range events {
		ids[i], topics[i], types[i], subjects[i] = e.ID.String(), e.Topic, e.Type, e.Subject
		ordered[i], contentTypes[i], bodies[i] = !unordered[e.ID], e.ContentType, stored.Body(e)
	}
	return o.queries.Get("Record"), []any{source, ids, topics, types, subjects, ordered, contentTypes, headers, bodies}, nil
}

// returned are the rows that a statement returns, of pgx or of database/sql.
type returned interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
}

// complete reads what the database assigned. The rows are then to be closed.
func complete(rows returned, events []rocketflow.Event) error {
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
