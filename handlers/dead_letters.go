package handlers

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/queries"
	"github.com/rocketflow/rocketflow/internal/valid"
)

// DeadLetters is the way to the events that handlers gave up, and to those that wait. It needs no running Router: what
// it makes due is taken within seconds by any process that runs the consumer.
type DeadLetters struct {
	pool *pgxpool.Pool
	sql  queries.Set
}

// Filter selects parked events. Its fields must all match; an empty one matches any.
type Filter struct {
	Consumer                     string
	EventID                      uuid.UUID
	Source, Topic, Type, Subject string
	All                          bool // required of a filter with no field set, wherever something is changed
	Limit                        int  // the longest parked first; default: 1000 for lists, none for changes
}

// NewDeadLetters returns the parked events of a schema; empty: rocketflow.DefaultSchema.
func NewDeadLetters(pool *pgxpool.Pool, schema string) *DeadLetters {
	return &DeadLetters{pool, queries.Parse(queriesFile, cmp.Or(schema, rocketflow.DefaultSchema))}
}

// List returns dead letters, the oldest first.
func (d *DeadLetters) List(ctx context.Context, f Filter) ([]Parked, error) {
	return d.list(ctx, true, f, int64(cmp.Or(f.Limit, 1000)))
}

// Waiting returns events that are parked for their next attempt or behind a gap, the oldest first.
func (d *DeadLetters) Waiting(ctx context.Context, f Filter) ([]Parked, error) {
	return d.list(ctx, false, f, int64(cmp.Or(f.Limit, 1000)))
}

func (d *DeadLetters) list(ctx context.Context, dead bool, f Filter, limit any) ([]Parked, error) {
	rows, err := d.pool.Query(ctx, d.sql.Get("List"), dead, f.Consumer, f.id(), f.Source, f.Topic, f.Type, f.Subject, limit)
	if err != nil {
		return nil, fmt.Errorf("list parked events: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Parked, error) {
		r, err := scanParked(row)
		if err != nil {
			return Parked{}, err
		}
		return r.Parked, nil
	})
	if err != nil {
		return nil, fmt.Errorf("list parked events: %w", err)
	}
	return list, nil
}

// Retry makes dead letters due, with all their attempts before them, and returns how many; with an error, how many until
// then. It waits for a handler that runs what comes before one of them in its stream.
func (d *DeadLetters) Retry(ctx context.Context, f Filter) (n int, err error) {
	if err := f.check(); err != nil {
		return 0, err
	}
	rows, err := d.pool.Query(ctx, d.sql.Get("Dead"), f.Consumer, f.id(), f.Source, f.Topic, f.Type, f.Subject, f.limit())
	if err != nil {
		return 0, fmt.Errorf("list dead letters: %w", err)
	}
	dead, err := pgx.CollectRows(rows, pgx.RowToStructByPos[letterKey])
	if err != nil {
		return 0, fmt.Errorf("list dead letters: %w", err)
	}
	for page := range slices.Chunk(dead, retryPage) {
		done, err := d.retry(ctx, page)
		if n += done; err != nil {
			return n, fmt.Errorf("retry dead letters: %w", err)
		}
	}
	return n, nil
}

const retryPage = 1000

type letterKey struct{ Consumer, Source, EventID string }

// retry makes due what is free at once, and then, one by one, what was locked.
func (d *DeadLetters) retry(ctx context.Context, page []letterKey) (n int, err error) {
	consumers, sources, ids := make([]string, len(page)), make([]string, len(page)), make([]string, len(page))
	for i, k := range page {
		consumers[i], sources[i], ids[i] = k.Consumer, k.Source, k.EventID
	}
	rows, err := d.pool.Query(ctx, d.sql.Get("RetryFree"), consumers, sources, ids)
	if err != nil {
		return 0, err
	}
	locked, err := pgx.CollectRows(rows, pgx.RowToStructByPos[letterKey])
	if err != nil {
		return 0, err
	}
	n = len(page) - len(locked)
	for _, k := range locked {
		tag, err := d.pool.Exec(ctx, d.sql.Get("RetryDead"), k.Consumer, k.Source, k.EventID)
		if err != nil {
			return n, err
		}
		n += int(tag.RowsAffected())
	}
	return n, nil
}

// Discard settles dead letters without their effect, so that what waits behind them goes on, and returns how many.
func (d *DeadLetters) Discard(ctx context.Context, f Filter) (int, error) {
	if err := f.check(); err != nil {
		return 0, err
	}
	list, err := d.list(ctx, true, f, f.limit())
	if err != nil {
		return 0, err
	}
	n := 0
	for _, p := range list {
		done := false
		err := pgx.BeginTxFunc(ctx, d.pool, readCommitted, func(tx pgx.Tx) (err error) {
			done, err = d.discard(ctx, tx, p)
			return err
		})
		if err != nil {
			return n, fmt.Errorf("discard dead letter %s: %w", p.Event.ID, err)
		}
		if done {
			n++
		}
	}
	return n, nil
}

// discard settles p if it still is a dead letter and, in a stream, the first that is parked: what came before it would
// be lost otherwise.
func (d *DeadLetters) discard(ctx context.Context, tx pgx.Tx, p Parked) (bool, error) {
	s := store{d.sql, p.Consumer}
	if p.Event.Ordered() {
		at := &lockedStream{Stream: p.Event.Stream()}
		if err := s.lock(ctx, tx, []*lockedStream{at}, &pgx.Batch{}); err != nil || at.head != p.Event.Sequence {
			return false, err
		}
	}
	row, err := s.load(ctx, tx, keyOf(p.Event))
	if err != nil || row == nil || row.Reason != DeadLetter {
		return false, err
	}
	return true, s.discard(ctx, tx, p.Event)
}

// Accept lets an event run whose predecessor is lost: the first of its stream that waits behind a gap. Should the
// predecessor come after all, it becomes a dead letter that holds nobody. It returns false if the event does not wait for that.
func (d *DeadLetters) Accept(ctx context.Context, consumer string, event uuid.UUID) (bool, error) {
	tag, err := d.pool.Exec(ctx, d.sql.Get("AcceptGap"), consumer, event.String())
	if err != nil {
		return false, fmt.Errorf("accept gap before %s: %w", event, err)
	}
	return tag.RowsAffected() > 0, nil
}

func (f Filter) check() error {
	fields := f
	fields.All, fields.Limit = false, 0
	if fields == (Filter{}) && !f.All {
		return valid.Field("filter", "empty: set All to mean all")
	}
	return nil
}

// id is null for any.
func (f Filter) id() any {
	if f.EventID == uuid.Nil {
		return nil
	}
	return f.EventID.String()
}

// limit is null for none.
func (f Filter) limit() any {
	if f.Limit <= 0 {
		return nil
	}
	return int64(f.Limit)
}
