package handlers

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rocketflow/rocketflow"
)

// errUnfit: an event without order of this transaction is parked already, so its record in the inbox must be undone.
var errUnfit = errors.New("event is parked")

// stream is what an attempt knows of the position of one stream.
type stream struct {
	rocketflow.Stream
	spot        // as it is now
	known bool  // has a row
	first int64 // the position as it was found
}

// batch is one attempt at the events of a lane, in one transaction.
type batch struct {
	*consumer
	items   []*item // sorted by stream
	streams []*stream
	fresh   map[uuid.UUID]bool // ids that entered the inbox with us
	behind  []rocketflow.Event // parked by us
	ran     []rocketflow.Event
}

// attempt runs the handlers of items in one transaction and sets the fate of each. An error that isn't ctx's is the
// fault of one of them; nothing has happened then.
func (c *consumer) attempt(ctx context.Context, items []*item) error {
	handled := 0
	for _, it := range items {
		if c.handler(it.event) != nil {
			handled++
		}
	}
	if err := c.throttle(ctx, handled); err != nil {
		return err
	}
	var b *batch
	conflicts := maxConflicts
	if len(items) > 1 {
		conflicts = 0
	}
	err := c.publishing(ctx, conflicts, func(ctx context.Context, tx rocketflow.Tx) error {
		b = &batch{consumer: c, items: items}
		return b.run(ctx, tx)
	})
	if errors.Is(err, errUnfit) && len(items) == 1 {
		items[0].fate = parked
		return nil
	}
	if err != nil {
		return err
	}
	b.tell()
	return nil
}

func (b *batch) run(ctx context.Context, tx rocketflow.Tx) error {
	if err := b.load(ctx, tx); err != nil {
		return err
	}
	for _, it := range b.items {
		if it.fate = b.decide(it); it.fate == behind && it.stream.known {
			// Its stream's position is locked, so what it waits behind can't go unseen.
			it.fate = parked
			b.behind = append(b.behind, it.event)
		}
		if it.fate != run {
			continue
		}
		if b.handler(it.event) != nil {
			var err error
			if it.took, err = b.call(ctx, tx, it.event, 1); err != nil {
				return err
			}
			b.ran = append(b.ran, it.event)
		}
		if it.stream != nil {
			it.stream.last = it.event.Sequence
		}
	}
	if err := b.store(ctx, tx); err != nil {
		return err
	}
	b.cfg.Listener.Ran(BatchInfo{b.name, b.ran})
	return nil
}

// load locks the positions of all streams, enters the inbox, and looks what is parked, in one round trip.
func (b *batch) load(ctx context.Context, tx pgx.Tx) error {
	var ids []uuid.UUID   // for the inbox
	var loose []uuid.UUID // all without order that have a handler
	now := b.now()
	for i, it := range b.items {
		it.stream = nil
		e := it.event
		switch {
		case !e.Ordered():
			if b.handler(e) == nil || b.expired(e, now) {
				continue
			}
			loose = append(loose, e.ID)
			if usesInbox(e) {
				ids = append(ids, e.ID)
			}
		case i > 0 && b.items[i-1].event.Stream() == e.Stream():
			it.stream = b.items[i-1].stream
		default:
			it.stream = &stream{Stream: e.Stream()}
			b.streams = append(b.streams, it.stream)
		}
	}
	var q pgx.Batch
	if len(b.streams) > 0 {
		sources, topics, subjects := columns(b.streams)
		q.Queue(b.sql.Get("LockPositions"), b.name, sources, topics, subjects).Query(func(rows pgx.Rows) error {
			var n int
			var at spot
			_, err := pgx.ForEachRow(rows, []any{&n, &at.last, &at.skippedAfter, &at.skippedBefore}, func() error {
				s := b.streams[n-1]
				s.known, s.first, s.spot = true, at.last, at
				return nil
			})
			return err
		})
		q.Queue(b.sql.Get("ParkedHeads"), b.name, sources, topics, subjects).Query(func(rows pgx.Rows) error {
			var n int
			var head int64
			_, err := pgx.ForEachRow(rows, []any{&n, &head}, func() error { b.streams[n-1].head = head; return nil })
			return err
		})
	}
	b.fresh = map[uuid.UUID]bool{}
	if len(ids) > 0 {
		q.Queue(b.sql.Get("InsertInbox"), b.name, ids).Query(func(rows pgx.Rows) error {
			return eachID(rows, func(id uuid.UUID) { b.fresh[id] = true })
		})
	}
	unfit := false
	if len(loose) > 0 {
		q.Queue(b.sql.Get("ParkedIDs"), b.name, loose).Query(func(rows pgx.Rows) error {
			return eachID(rows, func(uuid.UUID) { unfit = true })
		})
	}
	if q.Len() == 0 {
		return nil
	}
	if err := tx.SendBatch(ctx, &q).Close(); err != nil {
		return fmt.Errorf("lock positions: %w", err)
	}
	if unfit {
		return errUnfit
	}
	return nil
}

func (b *batch) decide(it *item) fate {
	e, now := it.event, b.now()
	switch {
	case e.Ordered():
		return b.place(e, it.stream.spot, now)
	case b.handler(e) == nil || !usesInbox(e):
		return run
	case b.expired(e, now):
		return tooOld
	case !b.fresh[e.ID]:
		return duplicate
	}
	delete(b.fresh, e.ID) // a second copy in this batch is a duplicate
	return run
}

// store writes the positions that have moved, makes due what is parked behind them, and parks what is behind that.
func (b *batch) store(ctx context.Context, tx pgx.Tx) error {
	var moved, begun, waiting []*stream
	for _, s := range b.streams {
		if s.last == s.first {
			continue
		}
		if s.known {
			moved = append(moved, s)
		} else {
			begun = append(begun, s)
		}
		if s.head != 0 {
			waiting = append(waiting, s)
		}
	}
	var q pgx.Batch
	if len(moved) > 0 {
		sources, topics, subjects := columns(moved)
		q.Queue(b.sql.Get("AdvancePositions"), b.name, sources, topics, subjects, lasts(moved))
	}
	raced := false
	if len(begun) > 0 {
		sources, topics, subjects := columns(begun)
		q.Queue(b.sql.Get("InsertPositions"), b.name, sources, topics, subjects, lasts(begun)).Exec(func(tag pgconn.CommandTag) error {
			raced = tag.RowsAffected() < int64(len(begun))
			return nil
		})
	}
	if len(waiting) > 0 {
		sources, topics, subjects := columns(waiting)
		q.Queue(b.sql.Get("WakeHeads"), b.name, sources, topics, subjects)
	}
	for _, e := range b.behind {
		args, err := parkedArgs(b.name, e, waitBehind)
		if err != nil {
			return err
		}
		q.Queue(b.sql.Get("InsertParked"), args...)
	}
	if q.Len() == 0 {
		return nil
	}
	if err := tx.SendBatch(ctx, &q).Close(); err != nil {
		return fmt.Errorf("store positions: %w", err)
	}
	if raced {
		return errRaced
	}
	return nil
}

// tell reports what was committed.
func (b *batch) tell() {
	b.cfg.Listener.Committed(BatchInfo{b.name, b.ran})
	for _, it := range b.items {
		if it.fate != run {
			continue
		}
		if b.handler(it.event) == nil {
			b.cfg.Listener.Skipped(b.info(it.event))
			continue
		}
		b.cfg.Listener.Handled(HandledInfo{
			EventInfo: b.info(it.event), Attempt: 1, Took: it.took, Batch: len(b.ran), Latency: b.now().Sub(it.event.Time),
		})
	}
	for _, e := range b.behind {
		b.tellParked(e, waitBehind)
	}
	for _, s := range b.streams {
		if s.head != 0 && s.last != s.first {
			b.signal()
			return
		}
	}
}

func columns(streams []*stream) (sources, topics, subjects []string) {
	for _, s := range streams {
		sources = append(sources, s.Source)
		topics = append(topics, s.Topic)
		subjects = append(subjects, s.Subject)
	}
	return sources, topics, subjects
}

func lasts(streams []*stream) []int64 {
	list := make([]int64, len(streams))
	for i, s := range streams {
		list[i] = s.last
	}
	return list
}

func eachID(rows pgx.Rows, fn func(uuid.UUID)) error {
	var id uuid.UUID
	_, err := pgx.ForEachRow(rows, []any{&id}, func() error { fn(id); return nil })
	return err
}
