package outbox

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/queries"
	"github.com/rocketflow/rocketflow/internal/valid"
	"github.com/rocketflow/rocketflow/internal/wire"
)

//go:embed owed.sql
var owedSQL string

// DiscardedType is the type of the event that stands in a stream for one that an operator discarded, or redirected to
// another topic. Its body is JSON with the members type, of the event that it stands for, and reason.
const DiscardedType = "rocketflow.discarded"

// Owed is for the events of a schema that are owed and that the broker rejects: a topic or a right is missing, or an event
// is larger than the broker takes. They are tried again for ever. Where nobody can or will mend the cause, an operator
// redirects them to another topic or discards them.
//
// Both take an event out of its stream. So that consumers of the stream neither wait for it nor take its followers for
// forged, an event of type DiscardedType stands in its place, with its sequence and its predecessor: who has no handler for
// it, as usual, steps over it. It goes out as any other event. Where the broker takes nothing of the topic it isn't sent,
// but kept for Config.Retention for consumers that ask for what they miss; who begins to read the stream after that begins
// at what it finds, as with every stream whose beginning is no longer kept.
//
// An event that the sweep is trying at the same moment may still go out as it was.
type Owed struct {
	pool *pgxpool.Pool
	sql  queries.Set
}

// OwedEvent is an owed event that the broker rejects.
type OwedEvent struct {
	Event      rocketflow.Event // without headers and body
	Size       int              // of the body
	Reason     string           // in the broker's words, the last time
	Attempts   int
	RejectedAt time.Time // the first time
	NextAt     time.Time // of the next attempt; zero: when one event of its topic was taken
}

// OwedFilter selects rejected events. Its fields must all match; an empty one matches any.
type OwedFilter struct {
	EventID                      uuid.UUID
	Source, Topic, Type, Subject string
	All                          bool // required of a filter with no field set, wherever something is changed
	Limit                        int  // the oldest first; default: 1000 for lists, none for changes
}

// NewOwed returns the rejected events of a schema; empty: rocketflow.DefaultSchema.
func NewOwed(pool *pgxpool.Pool, schema string) *Owed {
	return &Owed{pool, queries.Parse(owedSQL, cmp.Or(schema, rocketflow.DefaultSchema))}
}

// List returns what the broker rejects, the oldest first.
func (o *Owed) List(ctx context.Context, f OwedFilter) ([]OwedEvent, error) {
	f.Limit = cmp.Or(f.Limit, 1000)
	return o.list(ctx, f)
}

func (o *Owed) list(ctx context.Context, f OwedFilter) ([]OwedEvent, error) {
	id := ""
	if f.EventID != uuid.Nil {
		id = f.EventID.String()
	}
	limit := int64(f.Limit)
	if limit <= 0 {
		limit = 1 << 62
	}
	rows, err := o.pool.Query(ctx, o.sql.Get("ListOwed"), id, f.Source, f.Topic, f.Type, f.Subject, limit)
	if err != nil {
		return nil, fmt.Errorf("list rejected events: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r OwedEvent, err error) {
		e := &r.Event
		var next *time.Time
		err = row.Scan(&e.ID, &e.Source, &e.Topic, &e.Type, &e.Subject, &e.Sequence, &e.Previous, &e.Time, &e.ContentType, &r.Size,
			&r.Reason, &r.Attempts, &r.RejectedAt, &next)
		if next != nil {
			r.NextAt = *next
		}
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("list rejected events: %w", err)
	}
	return list, nil
}

// owedPage is how many events are changed in one transaction.
const owedPage = 200

// Retry has events tried again by the next sweep, and returns how many; of a topic that takes nothing one is tried first.
func (o *Owed) Retry(ctx context.Context, f OwedFilter) (n int, err error) {
	return o.change(ctx, f, "retry", func(ctx context.Context, tx pgx.Tx, ids []string) error {
		_, err := tx.Exec(ctx, o.sql.Get("RetryOwed"), ids)
		return err
	})
}

// Discard gives events up, for a reason that is told to those who read their streams, and returns how many; with an
// error, how many until then. As they were they are kept in the table outbox_discarded for Config.Retention.
func (o *Owed) Discard(ctx context.Context, f OwedFilter, reason string) (n int, err error) {
	reason = printable.Text(cmp.Or(reason, "discarded by an operator"), maxReason)
	return o.change(ctx, f, "discard", func(ctx context.Context, tx pgx.Tx, ids []string) error {
		_, err := tx.Exec(ctx, o.sql.Get("DiscardOwed"), ids, reason, DiscardedType)
		return err
	})
}

// Redirect has events sent to another topic, and returns how many; with an error, how many until then. They keep id,
// source, type, subject, time and body. One with a place in a stream takes the next place in the stream of its source and
// subject in the other topic, behind what was published there meanwhile; among themselves they keep their order.
func (o *Owed) Redirect(ctx context.Context, f OwedFilter, topic string) (n int, err error) {
	if topic == "" || topic == f.Topic {
		return 0, valid.Fieldf("topic", "%q: want another topic", topic)
	}
	if err := wire.Validate(rocketflow.Event{Topic: topic, Type: DiscardedType}); err != nil {
		return 0, err
	}
	return o.change(ctx, f, "redirect", func(ctx context.Context, tx pgx.Tx, ids []string) error {
		for _, id := range ids {
			instead, err := uuid.NewV7()
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, o.sql.Get("RedirectOwed"), id, topic, instead.String(), DiscardedType); err != nil {
				return err
			}
		}
		return nil
	})
}

// change calls fn with pages of what f selects now, each in a transaction, locked and in the order of streams.
func (o *Owed) change(ctx context.Context, f OwedFilter, what string, fn func(ctx context.Context, tx pgx.Tx, ids []string) error) (n int, err error) {
	if f.Limit < 0 {
		return 0, valid.Fieldf("outbox.OwedFilter.Limit", "%d: want none or more than 0", f.Limit)
	}
	if selective := f.EventID != uuid.Nil || f.Source+f.Topic+f.Type+f.Subject != ""; selective == f.All {
		return 0, valid.Field("outbox.OwedFilter", "want either All or a field that selects events")
	}
	list, err := o.list(ctx, f)
	if err != nil {
		return 0, err
	}
	slices.SortStableFunc(list, func(a, b OwedEvent) int {
		x, y := a.Event, b.Event
		return cmp.Or(cmp.Compare(x.Source, y.Source), cmp.Compare(x.Subject, y.Subject), cmp.Compare(x.Sequence, y.Sequence))
	})
	for page := range slices.Chunk(list, owedPage) {
		ids := make([]string, len(page))
		for i, e := range page {
			ids[i] = e.Event.ID.String()
		}
		err := pgx.BeginTxFunc(ctx, o.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite}, func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, o.sql.Get("LockOwed"), ids)
			if err != nil {
				return err
			}
			if ids, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
				return err
			}
			return fn(ctx, tx, ids)
		})
		if err != nil {
			return n, fmt.Errorf("%s rejected events: %w", what, err)
		}
		n += len(ids)
	}
	return n, nil
}
