package handlers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/queries"
	"github.com/rocketflow/rocketflow/internal/stored"
)

// store is all SQL about positions, inbox and parked events of one consumer. Methods that queue a statement add it to a
// batch, whose outcome the caller reads.
//
// Locks are taken in one order: positions by key, then the inbox by id, then parked rows of the streams whose positions
// are held. Whoever parks an event of a stream or takes one out holds its position, so neither can miss the other.
type store struct {
	sql      queries.Set
	consumer string
}

// lockedStream is a stream whose position's row the transaction holds.
type lockedStream struct {
	rocketflow.Stream
	position
	first  int64 // the position as it was found
	forked bool  // the chain went past what is parked
}

// lock locks the positions of streams and reads what is parked in them. Streams that have no row get one first, so that
// two processes can't both begin one.
func (s store) lock(ctx context.Context, tx pgx.Tx, streams []*lockedStream, more *pgx.Batch) error {
	var q pgx.Batch
	found := make([]bool, len(streams))
	if len(streams) > 0 {
		s.queueLock(&q, streams, found)
	}
	q.QueuedQueries = append(q.QueuedQueries, more.QueuedQueries...)
	if q.Len() == 0 {
		return nil
	}
	if err := tx.SendBatch(ctx, &q).Close(); err != nil {
		return fmt.Errorf("lock positions: %w", err)
	}
	var begun []*lockedStream
	for i, ok := range found {
		if !ok {
			begun = append(begun, streams[i])
		}
	}
	if len(begun) == 0 {
		return nil
	}
	q = pgx.Batch{}
	sources, topics, subjects := columns(begun)
	q.Queue(s.sql.Get("ClaimPositions"), s.consumer, sources, topics, subjects)
	s.queueLock(&q, begun, make([]bool, len(begun)))
	if err := tx.SendBatch(ctx, &q).Close(); err != nil {
		return fmt.Errorf("claim positions: %w", err)
	}
	return nil
}

func (s store) queueLock(q *pgx.Batch, streams []*lockedStream, found []bool) {
	sources, topics, subjects := columns(streams)
	q.Queue(s.sql.Get("LockPositions"), s.consumer, sources, topics, subjects).Query(func(rows pgx.Rows) error {
		var n int64
		var at position
		_, err := pgx.ForEachRow(rows, []any{&n, &at.last, &at.skipped}, func() error {
			streams[n-1].position, streams[n-1].first, found[n-1] = at, at.last, true
			at = position{}
			return nil
		})
		return err
	})
	q.Queue(s.sql.Get("ParkedHeads"), s.consumer, sources, topics, subjects).Query(func(rows pgx.Rows) error {
		var n, head, previous int64
		var id string
		_, err := pgx.ForEachRow(rows, []any{&n, &head, &previous, &id}, func() error {
			p := &streams[n-1].position
			p.head, p.headPrevious, p.headID = head, previous, id
			return nil
		})
		return err
	})
}

// queueNow reads Postgres' clock.
func (s store) queueNow(q *pgx.Batch, now *time.Time) {
	q.Queue(s.sql.Get("Now")).QueryRow(func(row pgx.Row) error { return row.Scan(now) })
}

// queueRecorded reads which of the routes have a handler in some process.
func (s store) queueRecorded(q *pgx.Batch, routes []route, recorded map[route]bool) {
	topics, types := make([]string, len(routes)), make([]string, len(routes))
	for i, r := range routes {
		topics[i], types[i] = r.topic, r.eventType
	}
	q.Queue(s.sql.Get("RecordedOf"), s.consumer, topics, types).Query(func(rows pgx.Rows) error {
		var r route
		_, err := pgx.ForEachRow(rows, []any{&r.topic, &r.eventType}, func() error { recorded[r] = true; return nil })
		return err
	})
}

// eventKey is the identity of an event.
type eventKey struct {
	source string
	id     uuid.UUID
}

func keyOf(e rocketflow.Event) eventKey { return eventKey{cleanKey(e.Source), e.ID} }

// entry is what the inbox says of an event.
type entry struct {
	fresh  bool // it entered the inbox now
	digest *int64
}

// queueEnter enters events into the inbox.
func (s store) queueEnter(q *pgx.Batch, events []rocketflow.Event, entries map[eventKey]entry) {
	ids, sources := keys(events)
	digests := make([]int64, len(events))
	for i, e := range events {
		digests[i] = stored.Digest(e)
	}
	q.Queue(s.sql.Get("InsertInbox"), s.consumer, ids, sources, digests).Query(func(rows pgx.Rows) error {
		var id, source string
		var found entry
		_, err := pgx.ForEachRow(rows, []any{&id, &source, &found.fresh, &found.digest}, func() error {
			k := eventKey{source, uuid.MustParse(id)}
			if was, ok := entries[k]; !ok || !was.fresh {
				entries[k] = found
			}
			found = entry{}
			return nil
		})
		return err
	})
}

// queueLeave takes events out of the inbox that entered it in this transaction.
func (s store) queueLeave(q *pgx.Batch, events []rocketflow.Event) {
	ids, sources := keys(events)
	q.Queue(s.sql.Get("LeaveInbox"), s.consumer, ids, sources)
}

// queueParkedOf reads which of the events are parked.
func (s store) queueParkedOf(q *pgx.Batch, events []rocketflow.Event, parked map[eventKey]bool) {
	ids, sources := keys(events)
	q.Queue(s.sql.Get("ParkedOf"), s.consumer, ids, sources).Query(func(rows pgx.Rows) error {
		var id, source string
		_, err := pgx.ForEachRow(rows, []any{&id, &source}, func() error {
			parked[eventKey{source, uuid.MustParse(id)}] = true
			return nil
		})
		return err
	})
}

// loadStream reads and locks the first parked events of a stream, whose position is held.
func (s store) loadStream(ctx context.Context, tx pgx.Tx, of rocketflow.Stream, limit int) ([]*record, error) {
	rows, err := tx.Query(ctx, s.sql.Get("LoadStream"), s.consumer, of.Source, of.Topic, of.Subject, int64(limit))
	if err == nil {
		var list []*record
		if list, err = pgx.CollectRows(rows, scanParked); err == nil {
			return list, nil
		}
	}
	return nil, fmt.Errorf("read parked events: %w", err)
}

// load reads and locks a parked event; nil: there is none.
func (s store) load(ctx context.Context, tx pgx.Tx, k eventKey) (*record, error) {
	rows, err := tx.Query(ctx, s.sql.Get("LoadParked"), s.consumer, k.source, k.id.String())
	if err == nil {
		var r *record
		if r, err = pgx.CollectExactlyOneRow(rows, scanParked); err == nil {
			return r, nil
		}
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return nil, fmt.Errorf("read parked event: %w", err)
}

// queuePark parks an event.
func (s store) queuePark(q *pgx.Batch, e rocketflow.Event, p parking) error {
	headers, err := stored.Headers(e)
	if err != nil {
		return err
	}
	q.Queue(s.sql.Get("InsertParked"),
		s.consumer, e.ID.String(), string(p.reason), int32(min(p.attempts, 1<<30)), seconds(p.after), errorText(p.err),
		cleanKey(e.Source), cleanKey(e.Topic), cleanKey(e.Type), cleanKey(e.Subject), e.Sequence, e.Previous, e.Time,
		clean(e.Database), clean(e.TimeoutKey), clean(e.TimeoutName), clean(e.ContentType), headers, stored.Body(e))
	return nil
}

// queueReschedule says how a parked event goes on waiting.
func (s store) queueReschedule(q *pgx.Batch, e rocketflow.Event, p parking) *pgx.QueuedQuery {
	k := keyOf(e)
	return q.Queue(s.sql.Get("Reschedule"), s.consumer, k.source, k.id.String(), string(p.reason), int32(min(p.attempts, 1<<30)), errorText(p.err), seconds(p.after))
}

// queueUnplace makes a parked event a dead letter that holds nobody.
func (s store) queueUnplace(q *pgx.Batch, e rocketflow.Event, err error) {
	k := keyOf(e)
	q.Queue(s.sql.Get("Unplace"), s.consumer, k.source, k.id.String(), errorText(err))
}

// queueUnplaceBetween does so with what is parked between two sequences of a stream.
func (s store) queueUnplaceBetween(q *pgx.Batch, of rocketflow.Stream, after, before int64, err error, each func(id uuid.UUID, eventType string)) {
	q.Queue(s.sql.Get("UnplaceBetween"), s.consumer, of.Source, of.Topic, of.Subject, after, before, errorText(err)).Query(func(rows pgx.Rows) error {
		var id, eventType string
		_, err := pgx.ForEachRow(rows, []any{&id, &eventType}, func() error { each(uuid.MustParse(id), eventType); return nil })
		return err
	})
}

// queueDelete forgets parked events.
func (s store) queueDelete(q *pgx.Batch, events ...rocketflow.Event) {
	ids, sources := keys(events)
	q.Queue(s.sql.Get("DeleteParked"), s.consumer, sources, ids)
}

// queueAdvance writes how far streams have come, and makes due what is parked next.
func (s store) queueAdvance(q *pgx.Batch, moved []*lockedStream) {
	sources, topics, subjects := columns(moved)
	last := make([]int64, len(moved))
	var parked []*lockedStream
	for i, m := range moved {
		last[i] = m.last
		if m.head != 0 {
			parked = append(parked, m)
		}
	}
	q.Queue(s.sql.Get("AdvancePositions"), s.consumer, sources, topics, subjects, last)
	if len(parked) > 0 {
		s.queueWake(q, parked)
	}
}

// queueWake makes due what is parked next in streams.
func (s store) queueWake(q *pgx.Batch, streams []*lockedStream) {
	sources, topics, subjects := columns(streams)
	last := make([]int64, len(streams))
	for i, m := range streams {
		last[i] = m.last
	}
	q.Queue(s.sql.Get("Wake"), s.consumer, sources, topics, subjects, last)
}

// queueSkip writes down what a stream passes over.
func (s store) queueSkip(q *pgx.Batch, of *lockedStream, after, before int64) {
	of.skipped = of.skip(after, before)
	q.Queue(s.sql.Get("Skip"), s.consumer, of.Source, of.Topic, of.Subject, of.skipped)
}

// queueEndTimeout ends the epoch of a timeout whose event is settled without firing, whatever settles it. Elsewhere it
// would be sent for ever.
func (s store) queueEndTimeout(q *pgx.Batch, e rocketflow.Event) {
	if e.TimeoutName != "" {
		q.Queue(s.sql.Get("EndTimeout"), e.TimeoutKey, e.TimeoutName, e.ID.String(), e.Database)
	}
}

// discard settles an event without its effect; its row, if it is parked, goes.
func (s store) discard(ctx context.Context, tx pgx.Tx, e rocketflow.Event) error {
	var q pgx.Batch
	at := &lockedStream{Stream: e.Stream()}
	if e.Ordered() {
		if err := s.lock(ctx, tx, []*lockedStream{at}, &pgx.Batch{}); err != nil {
			return err
		}
	} else if usesInbox(e) {
		s.queueEnter(&q, []rocketflow.Event{e}, map[eventKey]entry{})
	}
	s.queueDelete(&q, e)
	s.queueEndTimeout(&q, e)
	if e.Ordered() && e.Sequence > at.last {
		if e.Previous > at.last {
			s.queueSkip(&q, at, at.last, e.Sequence)
		}
		at.last = e.Sequence
		s.queueAdvance(&q, []*lockedStream{at})
	}
	if err := tx.SendBatch(ctx, &q).Close(); err != nil {
		return fmt.Errorf("discard event: %w", err)
	}
	return nil
}

func columns(streams []*lockedStream) (sources, topics, subjects []string) {
	for _, s := range streams {
		sources = append(sources, s.Source)
		topics = append(topics, s.Topic)
		subjects = append(subjects, s.Subject)
	}
	return sources, topics, subjects
}

func keys(events []rocketflow.Event) (ids, sources []string) {
	for _, e := range events {
		k := keyOf(e)
		ids = append(ids, k.id.String())
		sources = append(sources, k.source)
	}
	return ids, sources
}

func seconds(d time.Duration) *float64 {
	if d < 0 {
		return nil
	}
	s := d.Seconds()
	return &s
}

// scanParked reads a row of LoadStream, LoadParked or List.
func scanParked(row pgx.CollectableRow) (*record, error) {
	var r record
	var id, reason string
	var next *time.Time
	var waited float64
	var headers *string
	e := &r.Event
	err := row.Scan(&r.Consumer, &id, &reason, &r.Attempts, &next, &r.LastError, &r.ParkedAt, &waited,
		&e.Source, &e.Topic, &e.Type, &e.Subject, &e.Sequence, &e.Previous, &e.Time, &e.Database,
		&e.TimeoutKey, &e.TimeoutName, &e.ContentType, &headers, &e.Body)
	if err != nil {
		return nil, err
	}
	if e.ID, err = uuid.Parse(id); err != nil {
		return nil, fmt.Errorf("id of a parked event: %w", err)
	}
	r.Reason = Reason(reason)
	if next != nil {
		r.NextAt = *next
	}
	if headers != nil {
		if err := stored.SetHeaders(e, []byte(*headers)); err != nil {
			return nil, err
		}
	}
	e.Time = e.Time.UTC()
	r.waited = time.Duration(waited * float64(time.Second))
	return &r, nil
}

// usesInbox: a timeout's event has its own guard, the row that its firing deletes.
func usesInbox(e rocketflow.Event) bool { return !e.Ordered() && e.TimeoutName == "" }
