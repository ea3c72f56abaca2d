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
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/valid"
)

// DeadLetters is the way to the events that handlers gave up, and to those that wait. It needs no running Router: what
// it makes due is taken within seconds by any process that runs the consumer.
type DeadLetters struct {
	pool  *pgxpool.Pool
	store inbox.Store
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
	return &DeadLetters{pool, inbox.New(cmp.Or(schema, rocketflow.DefaultSchema))}
}

// List returns dead letters, the oldest first.
func (d *DeadLetters) List(ctx context.Context, f Filter) ([]Parked, error) {
	return d.list(ctx, true, f, cmp.Or(f.Limit, 1000))
}

// Waiting returns events that are parked for their next attempt or behind a gap, the oldest first.
func (d *DeadLetters) Waiting(ctx context.Context, f Filter) ([]Parked, error) {
	return d.list(ctx, false, f, cmp.Or(f.Limit, 1000))
}

func (d *DeadLetters) list(ctx context.Context, dead bool, f Filter, limit int) ([]Parked, error) {
	records, err := d.store.List(ctx, d.pool, dead, f.rows(limit))
	if err != nil {
		return nil, err
	}
	list := make([]Parked, len(records))
	for i, r := range records {
		list[i] = parkedOf(r)
	}
	return list, nil
}

// Retry makes dead letters due, with all their attempts before them, and returns how many; with an error, how many until
// then. It waits for a handler that runs what comes before one of them in its stream.
func (d *DeadLetters) Retry(ctx context.Context, f Filter) (n int, err error) {
	if err := f.check(); err != nil {
		return 0, err
	}
	dead, err := d.store.DeadKeys(ctx, d.pool, f.rows(f.Limit))
	if err != nil {
		return 0, err
	}
	for page := range slices.Chunk(dead, retryPage) {
		done, err := d.store.RetryDead(ctx, d.pool, page)
		if n += done; err != nil {
			return n, fmt.Errorf("retry dead letters: %w", err)
		}
	}
	return n, nil
}

const retryPage = 1000

// Discard settles dead letters without their effect, so that what waits behind them goes on, and returns how many.
func (d *DeadLetters) Discard(ctx context.Context, f Filter) (int, error) {
	if err := f.check(); err != nil {
		return 0, err
	}
	list, err := d.list(ctx, true, f, f.Limit)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, p := range list {
		done := false
		err := pgx.BeginTxFunc(ctx, d.pool, inbox.ReadCommitted, func(tx pgx.Tx) (err error) {
			done, err = d.store.Consumer(p.Consumer).DiscardDead(ctx, tx, p.Event)
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

// Accept lets an event run whose predecessor is lost: the first of its stream that waits behind a gap. Should the
// predecessor come after all, it becomes a dead letter that holds nobody. It returns false if the event does not wait for that.
func (d *DeadLetters) Accept(ctx context.Context, consumer string, event uuid.UUID) (bool, error) {
	accepted, err := d.store.Consumer(consumer).AcceptGap(ctx, d.pool, event)
	if err != nil {
		return false, fmt.Errorf("accept gap before %s: %w", event, err)
	}
	return accepted, nil
}

func (f Filter) check() error {
	fields := f
	fields.All, fields.Limit = false, 0
	if fields == (Filter{}) && !f.All {
		return valid.Field("filter", "empty: set All to mean all")
	}
	return nil
}

// rows is the filter as the tables have it.
func (f Filter) rows(limit int) inbox.Filter {
	return inbox.Filter{
		Consumer: f.Consumer, EventID: f.EventID, Source: f.Source, Topic: f.Topic, Type: f.Type, Subject: f.Subject, Limit: limit,
	}
}
