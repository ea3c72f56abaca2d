package outbox

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/stored"
)

// rowSource runs statements in a transaction, of pgx or of database/sql.
type rowSource interface {
	// read runs one statement and passes its rows to fn, which reads all of them.
	read(ctx context.Context, sql string, args []any, fn func(resultRows) error) error
}

// resultRows are the rows that a statement returns, of pgx or of database/sql.
type resultRows interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
}

// pgxRows is the rowSource of a transaction of pgx.
type pgxRows struct{ tx pgx.Tx }

func (p pgxRows) read(ctx context.Context, sql string, args []any, fn func(resultRows) error) error {
	rows, err := p.tx.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	return fn(rows)
}

// insertion returns the statement that inserts the rows of events. complete reads its result.
func (o *Outbox) insertion(events []rocketflow.Event, unordered map[uuid.UUID]bool, causes map[uuid.UUID]handledBy) (sql string, args []any, err error) {
	headers := make([]*string, len(events))
	for i, e := range events {
		if headers[i], err = stored.Headers(e); err != nil {
			return "", nil, err
		}
	}
	source := o.config.Source
	if e := events[0]; len(events) == 1 && !unordered[e.ID] {
		cause, consumer := causes[e.ID].columns()
		return o.queries.Get("RecordOne"), []any{source, e.ID.String(), e.Topic, e.Type, e.Subject, e.ContentType, headers[0], stored.Body(e), cause, consumer}, nil
	}
	n := len(events)
	ids, topics, types, subjects := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	ordered, contentTypes, bodies := make([]bool, n), make([]string, n), make([][]byte, n)
	causeIDs, consumers := make([]*string, n), make([]*string, n)
	for i, e := range events {
		ids[i], topics[i], types[i], subjects[i] = e.ID.String(), e.Topic, e.Type, e.Subject
		ordered[i], contentTypes[i], bodies[i] = !unordered[e.ID], e.ContentType, stored.Body(e)
		causeIDs[i], consumers[i] = causes[e.ID].columns()
	}
	return o.queries.Get("Record"), []any{source, ids, topics, types, subjects, ordered, contentTypes, headers, bodies, causeIDs, consumers}, nil
}

// handledBy is what a handler handled, and its consumer, when it published an event; zero: no handler published it.
type handledBy struct {
	event    uuid.UUID
	consumer string
}

// columns returns the values of the row's columns.
func (c handledBy) columns() (event, consumer *string) {
	if c.event == uuid.Nil {
		return nil, nil
	}
	id := c.event.String()
	return &id, &c.consumer
}

// complete sets what the database assigned to events: sequence, previous and time.
func complete(rows resultRows, events []rocketflow.Event) error {
	indexOf := make(map[uuid.UUID]int, len(events))
	for i, e := range events {
		indexOf[e.ID] = i
	}
	var (
		id                 uuid.UUID
		sequence, previous int64
		at                 time.Time
		synced             *string // the statement's last column, which sets synchronous_commit
	)
	for rows.Next() {
		if err := rows.Scan(&id, &sequence, &previous, &at, &synced); err != nil {
			return err
		}
		e := &events[indexOf[id]]
		e.Sequence, e.Previous, e.Time = sequence, previous, at
	}
	return rows.Err()
}
