package saga

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/queries"
	"github.com/rocketflow/rocketflow/internal/stored"
)

// WaitStatus is how a waiting event waits.
type WaitStatus string

const (
	WaitsForState WaitStatus = "waiting" // for a state that takes it, or for the saga to begin
	WaitsForRetry WaitStatus = "retry"   // its function failed and is tried again
	WaitFailed    WaitStatus = "failed"  // its function failed and is not tried again: retry or discard it
	WaitExpired   WaitStatus = "expired" // no state took it in time: retry or discard it
)

// WaitingEvent is an event that a saga has not taken yet.
type WaitingEvent struct {
	ID        int64 // names it for Retry and Discard
	Saga, Key string
	Status    WaitStatus
	Begun     bool   // whether its saga has begun, as far as an engine has seen
	State     string // of the saga when the event came; empty: it had not begun
	Attempts  int    // failed ones
	NextAt    time.Time
	ExpiresAt time.Time
	LastError string
	ArrivedAt time.Time
	Event     rocketflow.Event
}

// WaitingFilter selects waiting events. What is empty selects all.
type WaitingFilter struct {
	Saga, Key string
	Status    WaitStatus
	EventID   uuid.UUID
	After     int64 // those with a higher ID, for the next page
	Limit     int   // default 1000
}

// WaitingEvents lists the events that wait for sagas, and is for what operators do with them. It needs no engine.
type WaitingEvents struct {
	db interface {
		Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	}
	sql queries.Set
}

// NewWaitingEvents returns the waiting events of a schema; db is a pool, a connection or a transaction.
func NewWaitingEvents(db interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}, schema string) *WaitingEvents {
	return &WaitingEvents{db: db, sql: queries.Parse(sqlFile, schema)}
}

// List returns waiting events, those first that came first.
func (w *WaitingEvents) List(ctx context.Context, f WaitingFilter) ([]WaitingEvent, error) {
	id, limit := "", f.Limit
	if f.EventID != uuid.Nil {
		id = f.EventID.String()
	}
	if limit <= 0 {
		limit = 1000
	}
	rows, err := w.db.Query(ctx, w.sql.Get("ListWaiting"), f.Saga, f.Key, string(f.Status), id, f.After, int32(limit)) //nolint:gosec // pages are small
	if err != nil {
		return nil, fmt.Errorf("list waiting events: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (v WaitingEvent, err error) {
		e := &v.Event
		var headers []byte
		var next *time.Time
		err = row.Scan(&v.ID, &v.Saga, &v.Key, &v.Status, &v.Begun, &v.State, &v.Attempts, &next, &v.ExpiresAt, &v.LastError, &v.ArrivedAt,
			&e.ID, &e.Source, &e.Topic, &e.Type, &e.Subject, &e.Sequence, &e.Previous, &e.Time, &e.Database, &e.ContentType, &headers, &e.Body)
		if err != nil {
			return v, err
		}
		if next != nil {
			v.NextAt = *next
		}
		return v, stored.SetHeaders(e, headers)
	})
	if err != nil {
		return nil, fmt.Errorf("list waiting events: %w", err)
	}
	return list, nil
}

// Retry has engines apply waiting events again, with all their attempts, and with their time once more if they had
// expired. It returns how many there were.
func (w *WaitingEvents) Retry(ctx context.Context, ids ...int64) (int64, error) {
	tag, err := w.exec(ctx, "RetryWaiting", ids)
	if err != nil {
		return 0, fmt.Errorf("retry waiting events: %w", err)
	}
	return tag.RowsAffected(), nil
}

// Discard deletes waiting events. It returns how many there were.
func (w *WaitingEvents) Discard(ctx context.Context, ids ...int64) (int64, error) {
	tag, err := w.exec(ctx, "DiscardWaiting", ids)
	if err != nil {
		return 0, fmt.Errorf("discard waiting events: %w", err)
	}
	return tag.RowsAffected(), nil
}

func (w *WaitingEvents) exec(ctx context.Context, query string, ids []int64) (pgconn.CommandTag, error) {
	rows, err := w.db.Query(ctx, w.sql.Get(query), append([]int64{}, ids...))
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	rows.Close()
	return rows.CommandTag(), rows.Err()
}
