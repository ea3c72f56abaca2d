package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/queries"
)

// Reason says why an event is parked.
type Reason string

// Why an event is parked.
const (
	Retry      Reason = "retry" // it failed and will be tried again
	Gap        Reason = "gap"   // an event before it must be handled first
	DeadLetter Reason = "dead"  // it failed for good: a person decides
)

// Parked is an event that waits in Postgres, or a dead letter.
type Parked struct {
	Consumer  string
	Event     rocketflow.Event
	Reason    Reason
	Attempts  int       // failed so far
	NextAt    time.Time // when it is looked at again; zero: not before what it waits behind is done
	LastError string
	ParkedAt  time.Time
}

// record is a parked row as it is read, with how long it has been there by Postgres' clock.
type record struct {
	Parked
	waited time.Duration
}

const maxError = 4 << 10

// position reads and locks the position of a stream, making its row if need be. Whoever
// parks an event of the stream or takes one out holds this lock, so neither can miss the other.
func position(ctx context.Context, tx pgx.Tx, sql queries.Set, consumer string, s rocketflow.Stream) (at spot, err error) {
	var q pgx.Batch
	q.Queue(sql.Get("ClaimPosition"), consumer, s.Source, s.Topic, s.Subject)
	q.Queue(sql.Get("LockPosition"), consumer, s.Source, s.Topic, s.Subject).QueryRow(func(row pgx.Row) error {
		return row.Scan(&at.last, &at.skippedAfter, &at.skippedBefore)
	})
	q.Queue(sql.Get("ParkedHead"), consumer, s.Source, s.Topic, s.Subject).QueryRow(func(row pgx.Row) error { return row.Scan(&at.head) })
	if err := tx.SendBatch(ctx, &q).Close(); err != nil {
		return spot{}, fmt.Errorf("lock position: %w", err)
	}
	return at, nil
}

// advance moves a locked position past an event, forgets that it is parked, and makes the next one due.
func advance(ctx context.Context, tx pgx.Tx, sql queries.Set, consumer string, e rocketflow.Event) error {
	var q pgx.Batch
	q.Queue(sql.Get("DeleteParked"), consumer, e.ID)
	if s := e.Stream(); e.Ordered() {
		q.Queue(sql.Get("AdvancePosition"), consumer, s.Source, s.Topic, s.Subject, e.Sequence)
		q.Queue(sql.Get("WakeHeads"), consumer, []string{s.Source}, []string{s.Topic}, []string{s.Subject})
	}
	if err := tx.SendBatch(ctx, &q).Close(); err != nil {
		return fmt.Errorf("advance position: %w", err)
	}
	return nil
}

// settled records that an event without order needs no handler any more. false: it was recorded before.
func settled(ctx context.Context, tx pgx.Tx, sql queries.Set, consumer string, e rocketflow.Event) (bool, error) {
	if !usesInbox(e) {
		return true, nil
	}
	tag, err := tx.Exec(ctx, sql.Get("InsertInbox"), consumer, []uuid.UUID{e.ID})
	if err != nil {
		return false, fmt.Errorf("enter inbox: %w", err)
	}
	return tag.RowsAffected() > 0, nil
}

// discard settles an event without its effect.
func (c *consumer) discard(ctx context.Context, e rocketflow.Event, cause error) error {
	err := c.stubbornly(ctx, func(ctx context.Context, tx pgx.Tx) error { return discard(ctx, tx, c.sql, c.name, e) })
	if err == nil {
		c.cfg.Listener.Discarded(FailureInfo{c.info(e), 0, cause})
		c.signal()
	}
	return err
}

func discard(ctx context.Context, tx pgx.Tx, sql queries.Set, consumer string, e rocketflow.Event) error {
	var err error
	if e.Ordered() {
		_, err = position(ctx, tx, sql, consumer, e.Stream())
	} else {
		_, err = settled(ctx, tx, sql, consumer, e)
	}
	if err != nil {
		return err
	}
	return advance(ctx, tx, sql, consumer, e)
}

// park stores an event that can't be handled now, unless its turn has come meanwhile (again). It returns an error only
// if ctx ends.
func (c *consumer) park(ctx context.Context, e rocketflow.Event, p parking) (again bool, err error) {
	var outcome fate
	var now parking
	err = c.stubbornly(ctx, func(ctx context.Context, tx pgx.Tx) error {
		again, outcome, now = false, early, p
		if e.Ordered() {
			at, err := position(ctx, tx, c.sql, c.name, e.Stream())
			if err != nil {
				return err
			}
			outcome = c.place(e, at, c.now())
			switch {
			case outcome == tooLate:
				e, now = late(e)
			case outcome == duplicate || outcome == parked:
				return nil
			case p.reason == Gap && outcome == run:
				again = true
				return nil
			case p.reason == Gap && outcome == behind:
				now.after = forever
			case p.reason == Gap && p.after < 0:
				now.after = gapRecheck(0) // what it was behind is gone
			}
		}
		return insertParked(ctx, tx, c.sql, c.name, e, now)
	})
	switch {
	case err != nil || again:
	case outcome == duplicate:
		c.cfg.Listener.Duplicate(c.info(e))
	case outcome != parked:
		c.tellParked(e, now)
	}
	return again, err
}

// stubbornly is plainly for what nobody else could do in our place: it goes on until it succeeds or ctx ends.
func (c *consumer) stubbornly(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx) error) error {
	for try := 0; ; try++ {
		err := c.plainly(ctx, fn)
		if err == nil || ctx.Err() != nil {
			return err
		}
		c.trouble.Store(&err)
		c.cfg.Logger.Error("can't settle an event", keyConsumer, c.name, keyError, err)
		c.cfg.Listener.Stalled(StalledInfo{c.name, err, backoff(try)})
		if err := sleep(ctx, backoff(try)); err != nil {
			return err
		}
	}
}

func (c *consumer) tellParked(e rocketflow.Event, p parking) {
	if p.reason == DeadLetter {
		c.cfg.Logger.Error("event is a dead letter", keyConsumer, c.name, keyEvent, e.ID, keyType, e.Type, keySubject, e.Subject, keyAttempt, p.attempts, keyError, p.err)
		c.cfg.Listener.Dead(FailureInfo{c.info(e), p.attempts, p.err})
		return
	}
	if p.err != nil {
		c.cfg.Logger.Warn("event will be tried again", keyConsumer, c.name, keyEvent, e.ID, keyType, e.Type, keySubject, e.Subject, keyAttempt, p.attempts, keyAfter, p.after, keyError, p.err)
	}
	c.cfg.Listener.Parked(ParkedInfo{c.info(e), p.reason, p.attempts, p.after, p.err})
	c.signal()
}

func insertParked(ctx context.Context, tx pgx.Tx, sql queries.Set, consumer string, e rocketflow.Event, p parking) error {
	args, err := parkedArgs(consumer, e, p)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, sql.Get("InsertParked"), args...); err != nil {
		return fmt.Errorf("park event: %w", err)
	}
	return nil
}

// waitBehind parks an event that waits behind another of its stream, which wakes it.
var waitBehind = parking{reason: Gap, after: forever}

func parkedArgs(consumer string, e rocketflow.Event, p parking) ([]any, error) {
	var headers []byte
	if len(e.Headers) > 0 {
		cleaned := make(map[string]string, len(e.Headers))
		for k, v := range e.Headers {
			cleaned[clean(k)] = clean(v)
		}
		var err error
		if headers, err = json.Marshal(cleaned); err != nil {
			return nil, fmt.Errorf("encode headers: %w", err)
		}
	}
	body := e.Body
	if body == nil {
		body = []byte{}
	}
	return []any{
		consumer, e.ID, p.reason, p.attempts, seconds(p.after), errorText(p.err),
		cleanKey(e.Source), cleanKey(e.Topic), cleanKey(e.Type), cleanKey(e.Subject), e.Sequence, e.Previous, e.Time,
		clean(e.Database), clean(e.TimeoutKey), clean(e.TimeoutName), clean(e.ContentType), headers, body,
	}, nil
}

func seconds(d time.Duration) any {
	if d < 0 {
		return nil
	}
	return d.Seconds()
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return cut(clean(err.Error()), maxError)
}

// scanParked reads a row of LoadHead, LoadParked or List.
func scanParked(row pgx.CollectableRow) (*record, error) {
	var r record
	var next *time.Time
	var waited float64
	var headers []byte
	e := &r.Event
	err := row.Scan(&r.Consumer, &e.ID, &r.Reason, &r.Attempts, &next, &r.LastError, &r.ParkedAt, &waited,
		&e.Source, &e.Topic, &e.Type, &e.Subject, &e.Sequence, &e.Previous, &e.Time, &e.Database,
		&e.TimeoutKey, &e.TimeoutName, &e.ContentType, &headers, &e.Body)
	if err != nil {
		return nil, err
	}
	if next != nil {
		r.NextAt = *next
	}
	if headers != nil {
		if err := json.Unmarshal(headers, &e.Headers); err != nil {
			return nil, fmt.Errorf("headers of parked event %s: %w", e.ID, err)
		}
	}
	e.Time = e.Time.UTC()
	r.waited = time.Duration(waited * float64(time.Second))
	return &r, nil
}

// readParked returns the only row of a query, or nil if there is none.
func readParked(ctx context.Context, tx pgx.Tx, query string, args ...any) (*record, error) {
	rows, err := tx.Query(ctx, query, args...)
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
