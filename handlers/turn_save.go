package handlers

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/inbox"
)

// save stores the outcomes of the events.
func (t *turn) save(ctx context.Context, tx pgx.Tx) error {
	var q pgx.Batch
	last := map[*inbox.LockedStream]int64{} // as the events before have left it
	for _, s := range t.streams {
		last[s] = s.First
	}
	var gone []rocketflow.Event
	for _, c := range t.candidates {
		e := c.event
		switch c.decision {
		case run, skip, discarded:
			if c.decision == discarded {
				t.store.QueueEndTimeout(&q, e)
			}
			if c.row != nil {
				gone = append(gone, e)
			}
			if c.stream == nil {
				break
			}
			before := last[c.stream]
			if e.Previous > before {
				t.store.QueueSkip(&q, c.stream, before, e.Sequence)
			}
			if c.forks {
				t.store.QueueDeadUnorderedBetween(&q, c.stream.Stream, before, e.Sequence, errSuperseded, func(id uuid.UUID, eventType string) {
					c.superseded = append(c.superseded, rocketflow.Event{ID: id, Type: eventType, Source: e.Source, Topic: e.Topic, Subject: e.Subject})
				})
			}
			last[c.stream] = e.Sequence
		case duplicate:
			if c.row != nil {
				gone = append(gone, e)
			}
		case tooLate, conflict:
			if c.row != nil {
				t.store.QueueDeadUnordered(&q, c.row.Event, c.parked.Err)
				break
			}
			fallthrough
		default:
			switch {
			case c.parked == nil:
			case c.row != nil:
				t.store.QueueReschedule(&q, c.row.Event, *c.parked)
			default:
				if err := t.store.QueuePark(&q, e, *c.parked); err != nil {
					return err
				}
			}
		}
	}
	if len(gone) > 0 {
		t.store.QueueDelete(&q, gone...)
	}
	if events := t.unusedEntries(); len(events) > 0 {
		t.store.QueueDeleteEntries(&q, events)
	}
	var moved []*inbox.LockedStream
	for _, s := range t.streams {
		if s.Last != s.First {
			moved = append(moved, s)
		}
	}
	if len(moved) > 0 {
		t.store.QueueAdvance(&q, moved)
	}
	if q.Len() == 0 {
		return nil
	}
	if err := tx.SendBatch(ctx, &q).Close(); err != nil {
		return fmt.Errorf("store positions: %w", err)
	}
	return nil
}

// unusedEntries lists the events whose rows in the inbox this turn has inserted, and must delete because it didn't settle
// them.
func (t *turn) unusedEntries() (events []rocketflow.Event) {
	settled := map[inbox.Key]bool{}
	for _, e := range slices.Concat(t.ran, t.settled) {
		settled[inbox.KeyOf(e)] = true
	}
	for _, c := range t.candidates {
		if k := inbox.KeyOf(c.event); t.entries[k].Fresh && !settled[k] && c.decision != conflict {
			events = append(events, c.event)
		}
	}
	return events
}
