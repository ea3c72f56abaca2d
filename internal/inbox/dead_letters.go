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

// RetriedLetter is a dead letter as it was before it was retried.
type RetriedLetter struct {
	ParkedKey
	Type, Subject string
	Attempts      int
	LastError     string
}

// RetryFree makes dead letters due, with their attempts counted from 0 again, and returns them. Rows that another transaction, such as a
// handler's, has locked are left out; RetryLocked waits for them.
func (s Store) RetryFree(ctx context.Context, tx pgx.Tx, letters []ParkedKey) (retried []RetriedLetter, locked []ParkedKey, err error) {
	consumers, sources, ids := columnsOf(letters)
	rows, err := tx.Query(ctx, s.sql.Get("RetryFree"), consumers, sources, ids)
	if err != nil {
		return nil, nil, err
	}
	return collectRetried(rows)
}

// RetryLocked makes one dead letter due, once no transaction has locked it. It returns none if it is no dead letter any more.
func (s Store) RetryLocked(ctx context.Context, tx pgx.Tx, k ParkedKey) (retried []RetriedLetter, err error) {
	rows, err := tx.Query(ctx, s.sql.Get("RetryDead"), k.Consumer, k.Source, k.EventID)
	if err != nil {
		return nil, err
	}
	retried, _, err = collectRetried(rows)
	return retried, err
}

func collectRetried(rows pgx.Rows) (retried []RetriedLetter, locked []ParkedKey, err error) {
	var l RetriedLetter
	var done bool
	_, err = pgx.ForEachRow(rows, []any{&l.Consumer, &l.Source, &l.EventID, &done, &l.Type, &l.Subject, &l.Attempts, &l.LastError}, func() error {
		if done {
			retried = append(retried, l)
		} else {
			locked = append(locked, l.ParkedKey)
		}
		return nil
	})
	return retried, locked, err
}

// DiscardDead settles an event without its effect if it still is a dead letter and, in a stream, the first that is parked
// (otherwise those parked before it would be lost). It needs e without its body, and reports whether it did.
func (c Consumer) DiscardDead(ctx context.Context, tx pgx.Tx, e rocketflow.Event) (bool, error) {
	if e.Ordered() {
		at := &LockedStream{Stream: e.Stream()}
		if err := c.Lock(ctx, tx, []*LockedStream{at}, &pgx.Batch{}); err != nil || at.Head != e.Sequence {
			return false, err
		}
	}
	row, err := c.Load(ctx, tx, KeyOf(e))
	if err != nil || row == nil || row.Reason != DeadLetter {
		return false, err
	}
	return true, c.Discard(ctx, tx, row.Event, row.Edited) // the inbox has the digest of what is parked now
}

// EditDead changes the content of a dead letter and makes it due, with its attempts counted from 0 again. edit changes the content type,
// the headers and the body of the event. It keeps the content that was delivered. It returns the dead letter as it was; nil: it is none.
func (c Consumer) EditDead(ctx context.Context, tx pgx.Tx, k Key, edit func(*rocketflow.Event) error) (*Record, error) {
	row, err := c.Load(ctx, tx, k)
	if err != nil || row == nil || row.Reason != DeadLetter {
		return nil, err
	}
	e := row.Event
	if err := edit(&e); err != nil {
		return nil, err
	}
	headers, err := stored.Headers(e)
	if err != nil {
		return nil, err
	}
	var q pgx.Batch
	q.Queue(c.sql.Get("KeepOriginal"), c.name, k.Source, k.ID.String())
	q.Queue(c.sql.Get("EditDead"), c.name, k.Source, k.ID.String(), Clean(e.ContentType), headers, stored.Body(e))
	if err := tx.SendBatch(ctx, &q).Close(); err != nil {
		return nil, fmt.Errorf("edit dead letter: %w", err)
	}
	return row, nil
}

// Original is the content of an event as it was delivered to a consumer, before an operator edited it.
type Original struct {
	Consumer, Source string
	Event            rocketflow.Event // its content alone
	EditedAt         time.Time
}

// Originals returns the contents of an event before it was edited: one for each source that has used its id.
func (c Consumer) Originals(ctx context.Context, db DB, event uuid.UUID) ([]Original, error) {
	rows, err := db.Query(ctx, c.sql.Get("Originals"), c.name, event.String())
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (o Original, err error) {
		var headers *string
		o.Event.ID = event
		if err := row.Scan(&o.Consumer, &o.Source, &o.Event.ContentType, &headers, &o.Event.Body, &o.EditedAt); err != nil {
			return o, err
		}
		o.Event.Source = o.Source
		if headers != nil {
			err = stored.SetHeaders(&o.Event, []byte(*headers))
		}
		return o, err
	})
}

// Attempt says what became of a parked event that was made due.
type Attempt struct {
	Gone      bool   // it is parked no more: it was handled or discarded
	Reason    Reason // Paused also for a due event of a consumer that is paused as a whole
	Attempts  int
	LastError string
}

// AttemptOf returns what became of a dead letter that was made due.
func (s Store) AttemptOf(ctx context.Context, db DB, k ParkedKey) (a Attempt, err error) {
	err = db.QueryRow(ctx, s.sql.Get("AttemptOf"), k.Consumer, k.Source, k.EventID).Scan(&a.Reason, &a.Attempts, &a.LastError)
	if errors.Is(err, pgx.ErrNoRows) {
		return Attempt{Gone: true}, nil
	}
	return a, err
}

// AcceptGap makes the first parked event of a stream due without its predecessor. It returns false if the event doesn't wait
// for one.
func (c Consumer) AcceptGap(ctx context.Context, db DB, event uuid.UUID) (bool, error) {
	tag, err := db.Exec(ctx, c.sql.Get("AcceptGap"), c.name, event.String())
	return tag.RowsAffected() > 0, err
}
