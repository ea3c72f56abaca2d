package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
)

// record inserts the rows of what is pending and not recorded yet, in one round trip, and completes the events with
// what the database assigned.
func (t *tx) record(ctx context.Context) error {
	p := t.pending
	events := p.events[p.recorded:]
	if len(events) == 0 {
		return nil
	}
	r := t.outbox.current()
	if r == nil {
		return ErrNotStarted
	}
	headers := make([]*string, len(events))
	for i, e := range events {
		if len(e.Headers) == 0 {
			continue
		}
		text, err := json.Marshal(e.Headers)
		if err != nil {
			return fmt.Errorf("record events: headers of %s: %w", e.Type, err)
		}
		s := string(text)
		headers[i] = &s
	}
	if err := t.insert(ctx, events, headers); err != nil {
		return fmt.Errorf("record events: %w", err)
	}
	for i := range events {
		events[i].Database = r.database
	}
	p.recorded = len(p.events)
	t.outbox.listener.Recorded(events)
	return nil
}

func (t *tx) insert(ctx context.Context, events []rocketflow.Event, headers []*string) error {
	var (
		source = t.outbox.config.Source
		id     uuid.UUID
		at     time.Time
		synced *string
	)
	if len(events) == 1 && !t.pending.unordered[t.pending.recorded] {
		e := &events[0]
		return t.QueryRow(ctx, t.outbox.queries.Get("RecordOne"), source, [16]byte(e.ID), e.Topic, e.Type, e.Subject, e.ContentType, headers[0], e.Body).
			Scan(&e.Sequence, &e.Previous, &e.Time, &synced)
	}
	n := len(events)
	ids, topics, types, subjects := make([]uuid.UUID, n), make([]string, n), make([]string, n), make([]string, n)
	ordered, contentTypes, bodies := make([]bool, n), make([]string, n), make([][]byte, n)
	places := make(map[uuid.UUID]int, n)
	for i, e := range events {
		ids[i], topics[i], types[i], subjects[i] = e.ID, e.Topic, e.Type, e.Subject
		ordered[i], contentTypes[i], bodies[i] = !t.pending.unordered[t.pending.recorded+i], e.ContentType, e.Body
		places[e.ID] = i
	}
	rows, err := t.Query(ctx, t.outbox.queries.Get("Record"), source, ids, topics, types, subjects, ordered, contentTypes, headers, bodies)
	if err != nil {
		return err
	}
	defer rows.Close()
	var sequence, previous int64
	for rows.Next() {
		if err := rows.Scan(&id, &sequence, &previous, &at, &synced); err != nil {
			return err
		}
		e := &events[places[id]]
		e.Sequence, e.Previous, e.Time = sequence, previous, at
	}
	return rows.Err()
}
