package handlers

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/inbox"
)

// load locks the streams of the events and reads the rows that the decisions depend on.
func (t *turn) load(ctx context.Context, tx pgx.Tx) error {
	t.recorded, t.entries, t.parkedBefore, t.toRun = map[inbox.Route]bool{}, map[inbox.Key]inbox.Entry{}, map[inbox.Key]bool{}, map[inbox.Key]bool{}
	t.forked = map[*inbox.LockedStream]bool{}
	var q pgx.Batch
	t.store.QueueConditions(&q, &t.now, &t.pauses)
	if t.source != delivered {
		return t.loadParked(ctx, tx, &q)
	}
	var previous *candidate
	var entering, single []rocketflow.Event
	for _, c := range t.candidates {
		c.stream, c.decision, c.parked, c.forks, c.superseded = nil, undecided, nil, false, nil
		c.event = c.item.event
		e := c.event
		switch {
		case c.item.unreadable != nil:
			single = append(single, e)
		case !e.Ordered():
			single = append(single, e)
			if t.entersInbox(e) {
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
		t.store.QueueInsertEntries(&q, entering, nil, t.entries)
	}
	if len(single) > 0 {
		t.store.QueueFindParked(&q, single, t.parkedBefore)
	}
	if err := t.store.Lock(ctx, tx, t.streams, &q); err != nil {
		return err
	}
	if t.holds() {
		return errPaused
	}
	if err := t.lookBehindHeads(ctx, tx); err != nil {
		return err
	}
	return t.lookForHandled(ctx, tx)
}

// holds reports whether the turn may not go on because the whole consumer is paused. The outcome of a handler that has run is recorded
// all the same.
func (t *turn) holds() bool { return t.failure == nil && t.pauses.All() }

// entersInbox reports whether the turn inserts a row of the inbox for an event: its handler runs in this turn unless there is one,
// or a failure discards the event.
func (t *turn) entersInbox(e rocketflow.Event) bool {
	return inbox.UsesInbox(e) && t.handler(e) != nil && (t.failure == nil || t.failure.action == ActionDiscard)
}

// lookBehindHeads reads which of the delivered events are parked behind the first parked event of their stream: a delivery
// that passes that one must not run while a row of its own is parked.
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
	t.store.QueueFindParked(&q, behind, t.parkedBefore)
	if err := tx.SendBatch(ctx, &q).Close(); err != nil {
		return fmt.Errorf("look for parked events: %w", err)
	}
	return nil
}

// lookForHandled reads the inbox's rows of the unordered events whose handler only other processes have: an event of which a
// copy was handled is a duplicate, and doesn't wait for such a process.
func (t *turn) lookForHandled(ctx context.Context, tx pgx.Tx) error {
	var elsewhere []rocketflow.Event
	for _, c := range t.candidates {
		readable := c.item == nil || c.item.unreadable == nil
		if e := c.event; readable && inbox.UsesInbox(e) && t.handler(e) == nil && t.recorded[routeOf(e)] {
			elsewhere = append(elsewhere, e)
		}
	}
	if len(elsewhere) == 0 {
		return nil
	}
	var q pgx.Batch
	t.store.QueueEntriesOf(&q, elsewhere, t.entries)
	if err := tx.SendBatch(ctx, &q).Close(); err != nil {
		return fmt.Errorf("look for handled events: %w", err)
	}
	return nil
}

// loadParked makes candidates of parked events: the one that is due, if it may run, and those behind it.
func (t *turn) loadParked(ctx context.Context, tx pgx.Tx, q *pgx.Batch) error {
	var rows []*inbox.Record
	if t.parked.stream == (rocketflow.Stream{}) {
		row, err := t.store.Load(ctx, tx, inbox.Key{Source: t.parked.source, ID: t.parked.id})
		if err != nil {
			return err
		}
		if row != nil && row.Reason != inbox.DeadLetter {
			rows = append(rows, row)
		}
	} else {
		at := &inbox.LockedStream{Stream: t.parked.stream}
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
	past := map[inbox.Key]inbox.Past{}
	for _, row := range rows {
		c := &candidate{event: row.Event, row: row}
		past[inbox.KeyOf(row.Event)] = inbox.Past{Edited: row.Edited, Failed: row.Attempts}
		if row.Event.Ordered() {
			c.stream = t.streams[0]
		} else if t.entersInbox(row.Event) {
			entering = append(entering, row.Event)
		}
		t.candidates = append(t.candidates, c)
	}
	if routes := t.unknownRoutes(); len(routes) > 0 {
		t.store.QueueRecorded(q, routes, t.recorded)
	}
	if len(entering) > 0 {
		t.store.QueueInsertEntries(q, entering, past, t.entries)
	}
	if err := tx.SendBatch(ctx, q).Close(); err != nil {
		return fmt.Errorf("read what is registered: %w", err)
	}
	if t.holds() {
		return errPaused
	}
	return t.lookForHandled(ctx, tx)
}

// loadHead returns the parked events of a stream that may run now. The first is the one that is due, if one is.
func (t *turn) loadHead(ctx context.Context, tx pgx.Tx, at *inbox.LockedStream) ([]*inbox.Record, error) {
	rows, err := t.store.LoadStream(ctx, tx, at.Stream, t.limit)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	head := rows[0]
	if t.source == due && head.Event.ID != t.parked.id {
		row, err := t.store.Load(ctx, tx, inbox.Key{Source: inbox.CleanKey(t.parked.source), ID: t.parked.id})
		if err != nil || row == nil || row.Reason == inbox.DeadLetter || !row.Event.Ordered() {
			return nil, err
		}
		if passes(row.Event, at.Position, t.conditions(row.Event)) {
			return []*inbox.Record{row}, nil
		}
		// An earlier event was parked meanwhile; when that one is handled, this one becomes due.
		var q pgx.Batch
		t.store.QueuePostpone(&q, inbox.Key{Source: inbox.CleanKey(t.parked.source), ID: t.parked.id})
		t.store.QueueWake(&q, []*inbox.LockedStream{at})
		if err := tx.SendBatch(ctx, &q).Close(); err != nil {
			return nil, fmt.Errorf("postpone parked event: %w", err)
		}
		return nil, nil
	}
	n := 0
	for ; n < len(rows); n++ {
		reason := rows[n].Reason
		if reason == inbox.DeadLetter || (n > 0 || t.source == followers) && reason != inbox.Gap && reason != inbox.Busy {
			break // it waits for its next attempt, for a process with its handler, or for an operator
		}
	}
	return rows[:n], nil
}

// unknownRoutes lists the types that this process has no handler for.
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
