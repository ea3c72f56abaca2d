package handlers

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/inbox"
)

func (t *turn) load(ctx context.Context, tx pgx.Tx) error {
	t.recorded, t.entries, t.alreadyHas, t.taken = map[inbox.Route]bool{}, map[inbox.Key]inbox.Entry{}, map[inbox.Key]bool{}, map[inbox.Key]bool{}
	t.forked = map[*inbox.LockedStream]bool{}
	var q pgx.Batch
	t.store.QueueNow(&q, &t.now)
	if t.due != nil {
		return t.loadParked(ctx, tx, &q)
	}
	var previous *candidate
	var entering, single []rocketflow.Event
	for _, c := range t.candidates {
		c.stream, c.decision, c.parked, c.forks, c.ghosts = nil, undecided, nil, false, nil
		c.event = c.item.event
		e := c.event
		switch {
		case c.item.unreadable != nil:
			single = append(single, e)
		case !e.Ordered():
			single = append(single, e)
			if inbox.UsesInbox(e) && t.handler(e) != nil {
				entering = append(entering, e)
			}
		case previous != nil && previous.stream != nil && previous.event.Stream() == e.Stream():
			c.stream = previous.stream
		default:
			c.stream = &inbox.LockedStream{Stream: e.Stream()}
			t.streams = append(t.streams, c.stream)
		}
		previous = c
	}
	if routes := t.unknownRoutes(); len(routes) > 0 {
		t.store.QueueRecorded(&q, routes, t.recorded)
	}
	if len(entering) > 0 {
		t.store.QueueEnter(&q, entering, t.entries)
	}
	if len(single) > 0 {
		t.store.QueueParkedOf(&q, single, t.alreadyHas)
	}
	if err := t.store.Lock(ctx, tx, t.streams, &q); err != nil {
		return err
	}
	return t.lookBehindHeads(ctx, tx)
}

func (t *turn) lookBehindHeads(ctx context.Context, tx pgx.Tx) error {
	var behind []rocketflow.Event
	for _, c := range t.candidates {
		if c.stream != nil && c.stream.Head != 0 && c.event.Sequence > c.stream.Head {
			behind = append(behind, c.event)
		}
	}
	if len(behind) == 0 {
		return nil
	}
	var q pgx.Batch
	t.store.QueueParkedOf(&q, behind, t.alreadyHas)
	if err := tx.SendBatch(ctx, &q).Close(); err != nil {
		return fmt.Errorf("look for parked events: %w", err)
	}
	return nil
}

func (t *turn) loadParked(ctx context.Context, tx pgx.Tx, q *pgx.Batch) error {
	var rows []*inbox.Record
	if t.due.stream == (rocketflow.Stream{}) {
		row, err := t.store.Load(ctx, tx, inbox.Key{Source: t.due.source, ID: t.due.id})
		if err != nil {
			return err
		}
		if row != nil && row.Reason != inbox.DeadLetter {
			rows = append(rows, row)
		}
	} else {
		at := &inbox.LockedStream{Stream: t.due.stream}
		t.streams = append(t.streams, at)
		if err := t.store.Lock(ctx, tx, t.streams, &pgx.Batch{}); err != nil {
			return err
		}
		var err error
		if rows, err = t.loadHead(ctx, tx, at); err != nil {
			return err
		}
	}
	t.candidates = nil
	var entering []rocketflow.Event
	for _, row := range rows {
		c := &candidate{event: row.Event, row: row}
		if row.Event.Ordered() {
			c.stream = t.streams[0]
		} else if inbox.UsesInbox(row.Event) && t.handler(row.Event) != nil {
			entering = append(entering, row.Event)
		}
		t.candidates = append(t.candidates, c)
	}
	if routes := t.unknownRoutes(); len(routes) > 0 {
		t.store.QueueRecorded(q, routes, t.recorded)
	}
	if len(entering) > 0 {
		t.store.QueueEnter(q, entering, t.entries)
	}
	if err := tx.SendBatch(ctx, q).Close(); err != nil {
		return fmt.Errorf("read what is registered: %w", err)
	}
	return nil
}

func (t *turn) loadHead(ctx context.Context, tx pgx.Tx, at *inbox.LockedStream) ([]*inbox.Record, error) {
	follow := t.due.id == uuid.Nil
	rows, err := t.store.LoadStream(ctx, tx, at.Stream, t.limit)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	head := rows[0]
	if !follow && head.Event.ID != t.due.id {
		row, err := t.store.Load(ctx, tx, inbox.Key{Source: inbox.CleanKey(t.due.source), ID: t.due.id})
		if err != nil || row == nil || row.Reason == inbox.DeadLetter || !row.Event.Ordered() {
			return nil, err
		}
		if passes(row.Event, at.Position, t.rules(row.Event)) {
			return []*inbox.Record{row}, nil
		}
		// It has come to stand behind another: that one wakes it.
		var q pgx.Batch
		t.store.QueuePostpone(&q, inbox.Key{Source: inbox.CleanKey(t.due.source), ID: t.due.id})
		t.store.QueueWake(&q, []*inbox.LockedStream{at})
		if err := tx.SendBatch(ctx, &q).Close(); err != nil {
			return nil, fmt.Errorf("postpone parked event: %w", err)
		}
		return nil, nil
	}
	n := 0
	for ; n < len(rows); n++ {
		reason := rows[n].Reason
		if reason == inbox.DeadLetter || (n > 0 || follow) && reason != inbox.Gap && reason != inbox.Busy {
			break // it waits for its own next attempt, for a handler or for a person
		}
	}
	return rows[:n], nil
}

func (t *turn) unknownRoutes() (routes []inbox.Route) {
	seen := map[inbox.Route]bool{}
	for _, c := range t.candidates {
		r := routeOf(c.event)
		if !seen[r] && t.handlers[r] == nil && (c.item == nil || c.item.unreadable == nil) {
			seen[r] = true
			routes = append(routes, r)
		}
	}
	return routes
}
