package inbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/stored"
)

// Reason says why an event is parked: a value of the column reason.
type Reason string

// The reasons why an event is parked.
const (
	Retry      Reason = "retry"     // its handler failed, or returned RetryAfter
	Gap        Reason = "gap"       // an event before it must be handled first
	Busy       Reason = "busy"      // a handler was taking long with an earlier event of its aggregate
	Unhandled  Reason = "unhandled" // its handler is recorded, but missing in the process that received it
	Paused     Reason = "paused"    // its handler or its stream was paused
	DeadLetter Reason = "dead"      // it is not tried again: it waits for an operator
)

// Record is the row of a parked event.
type Record struct {
	Consumer  string
	Event     rocketflow.Event
	Reason    Reason
	Attempts  int       // failed so far
	NextAt    time.Time // when it is due; zero: when another event or an operator makes it due
	LastError string    // empty: none
	ParkedAt  time.Time
	Waited    time.Duration // since ParkedAt, by Postgres' clock
	Edited    bool          // an operator has changed its content
	Size      int           // of its body, in bytes
}

// Err returns LastError as an error; nil if there is none.
func (r *Record) Err() error {
	if r.LastError == "" {
		return nil
	}
	return errors.New(r.LastError)
}

// Parking says how to park an event.
type Parking struct {
	Reason   Reason
	Attempts int           // failed so far
	After    time.Duration // until it is due; UntilWoken or any negative value: until something makes it due
	Err      error         // why it waits; nil for a gap
}

// UntilWoken is the Parking.After of an event that waits for another event, a handler or an operator.
const UntilWoken = time.Duration(-1)

// Dead returns the Parking of a dead letter.
func Dead(err error) Parking { return Parking{Reason: DeadLetter, After: UntilWoken, Err: err} }

// maxAttempts bounds the column attempts, which is an integer.
const maxAttempts = 1 << 30

// QueuePark parks an event. It does nothing if the event is parked.
func (c Consumer) QueuePark(q *pgx.Batch, e rocketflow.Event, p Parking) error {
	headers, err := stored.Headers(e)
	if err != nil {
		return err
	}
	q.Queue(c.sql.Get("InsertParked"),
		c.name, e.ID.String(), string(p.Reason), int32(min(p.Attempts, maxAttempts)), seconds(p.After), ErrorText(p.Err),
		CleanKey(e.Source), CleanKey(e.Topic), CleanKey(e.Type), CleanKey(e.Subject), e.Sequence, e.Previous, e.Time,
		Clean(e.Database), Clean(e.TimeoutKey), Clean(e.TimeoutName), Clean(e.ContentType), headers, stored.Body(e))
	return nil
}

// QueueReschedule changes how a parked event waits. RowsAffected of its result is 0 if the event isn't parked.
func (c Consumer) QueueReschedule(q *pgx.Batch, e rocketflow.Event, p Parking) *pgx.QueuedQuery {
	k := KeyOf(e)
	return q.Queue(c.sql.Get("Reschedule"), c.name, k.Source, k.ID.String(), string(p.Reason), int32(min(p.Attempts, maxAttempts)), ErrorText(p.Err), seconds(p.After))
}

// QueueDeadUnordered makes a parked event a dead letter without order, so that it holds back no other event.
func (c Consumer) QueueDeadUnordered(q *pgx.Batch, e rocketflow.Event, err error) {
	k := KeyOf(e)
	q.Queue(c.sql.Get("DeadUnordered"), c.name, k.Source, k.ID.String(), ErrorText(err))
}

// QueueDelete deletes parked events.
func (c Consumer) QueueDelete(q *pgx.Batch, events ...rocketflow.Event) {
	ids, sources := keyColumns(events)
	q.Queue(c.sql.Get("DeleteParked"), c.name, sources, ids)
}

// QueuePostpone makes a parked event wait until another event makes it due.
func (c Consumer) QueuePostpone(q *pgx.Batch, k Key) {
	q.Queue(c.sql.Get("Postpone"), c.name, k.Source, k.ID.String())
}

// QueueEndTimeout ends the epoch of a timeout whose event is settled without having fired. Otherwise the sweep of timeouts
// would send the event again and again.
func (c Consumer) QueueEndTimeout(q *pgx.Batch, e rocketflow.Event) {
	if e.TimeoutName != "" {
		q.Queue(c.sql.Get("EndTimeout"), e.TimeoutKey, e.TimeoutName, e.ID.String(), e.Database, c.name)
	}
}

// QueueFindParked writes to parked which of the events are parked.
func (c Consumer) QueueFindParked(q *pgx.Batch, events []rocketflow.Event, parked map[Key]bool) {
	ids, sources := keyColumns(events)
	q.Queue(c.sql.Get("FindParked"), c.name, ids, sources).Query(func(rows pgx.Rows) error {
		var id, source string
		_, err := pgx.ForEachRow(rows, []any{&id, &source}, func() error {
			parked[Key{source, uuid.MustParse(id)}] = true
			return nil
		})
		return err
	})
}

// LoadStream reads and locks the first parked events of a stream, whose position must be locked.
func (c Consumer) LoadStream(ctx context.Context, tx pgx.Tx, of rocketflow.Stream, limit int) ([]*Record, error) {
	rows, err := tx.Query(ctx, c.sql.Get("LoadStream"), c.name, of.Source, of.Topic, of.Subject, int64(limit))
	if err == nil {
		var list []*Record
		if list, err = pgx.CollectRows(rows, scanRecord); err == nil {
			return list, nil
		}
	}
	return nil, fmt.Errorf("read parked events: %w", err)
}

// Load reads and locks a parked event; nil: it is not parked.
func (c Consumer) Load(ctx context.Context, tx pgx.Tx, k Key) (*Record, error) {
	rows, err := tx.Query(ctx, c.sql.Get("LoadParked"), c.name, k.Source, k.ID.String())
	if err == nil {
		var r *Record
		if r, err = pgx.CollectExactlyOneRow(rows, scanRecord); err == nil {
			return r, nil
		}
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return nil, fmt.Errorf("read parked event: %w", err)
}

// Discard settles an event without its effect, whether it is parked or not. edited says that its content isn't the delivered one.
func (c Consumer) Discard(ctx context.Context, tx pgx.Tx, e rocketflow.Event, edited bool) error {
	var q pgx.Batch
	at := &LockedStream{Stream: e.Stream()}
	if e.Ordered() {
		if err := c.Lock(ctx, tx, []*LockedStream{at}, &pgx.Batch{}); err != nil {
			return err
		}
	} else if UsesInbox(e) {
		c.QueueInsertEntries(&q, []rocketflow.Event{e}, map[Key]Past{KeyOf(e): {Edited: edited}}, map[Key]Entry{})
	}
	c.QueueDelete(&q, e)
	c.QueueEndTimeout(&q, e)
	if e.Ordered() && e.Sequence > at.Last {
		if e.Previous > at.Last {
			c.QueueSkip(&q, at, at.Last, e.Sequence)
		}
		at.Last = e.Sequence
		c.QueueAdvance(&q, []*LockedStream{at})
	}
	if err := tx.SendBatch(ctx, &q).Close(); err != nil {
		return fmt.Errorf("discard event: %w", err)
	}
	return nil
}

// scanRecord reads a row of LoadStream, LoadParked or ParkedRows.
func scanRecord(row pgx.CollectableRow) (*Record, error) {
	var r Record
	var id, reason string
	var next *time.Time
	var waited float64
	var headers *string
	e := &r.Event
	err := row.Scan(&r.Consumer, &id, &reason, &r.Attempts, &next, &r.LastError, &r.ParkedAt, &waited,
		&e.Source, &e.Topic, &e.Type, &e.Subject, &e.Sequence, &e.Previous, &e.Time, &e.Database,
		&e.TimeoutKey, &e.TimeoutName, &e.ContentType, &headers, &e.Body, &r.Edited, &r.Size)
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
	r.Waited = time.Duration(waited * float64(time.Second))
	return &r, nil
}
