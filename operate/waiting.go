package operate

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/stored"
)

//go:embed waiting.sql
var waitingSQL string

// WaitingStatus says what a waiting event waits for.
type WaitingStatus string

// The values of WaitingStatus.
const (
	WaitingForState WaitingStatus = "waiting" // it waits for a state that accepts it, or for the saga to begin
	WaitingForRetry WaitingStatus = "retry"   // its function failed and is called again
	WaitingFailed   WaitingStatus = "failed"  // its function failed and isn't called again: retry or discard it
	WaitingExpired  WaitingStatus = "expired" // no state accepted it in time: retry or discard it
)

// WaitingEvent is an event that came before its saga could accept it.
type WaitingEvent struct {
	ID        int64         // identifies it in a WaitingFilter
	Saga, Key string        // the saga that it waits for
	Status    WaitingStatus // what it waits for
	Begun     bool          // an engine has seen that its saga has begun
	State     string        // of the saga when the event came; empty: the saga had not begun
	Attempts  int           // failed so far
	NextAt    time.Time     // when it is due; zero: when its saga changes
	ExpiresAt time.Time     // when a waiting event expires
	LastError string        // of its function; empty: none
	ArrivedAt time.Time     // when it began to wait
	Event     rocketflow.Event
}

// WaitingFilter selects events that wait for sagas. An event is selected if it matches all fields that are set.
type WaitingFilter struct {
	IDs      []int64         `json:"ids,omitempty"`
	Saga     string          `json:"saga,omitempty"`
	Key      string          `json:"key,omitempty"`
	Statuses []WaitingStatus `json:"statuses,omitempty"` // one of them
	EventID  uuid.UUID       `json:"event_id,omitzero"`
	After    int64           `json:"after,omitempty"` // those with a higher ID: the next page of a list
	// All selects every waiting event. A change requires either All or one of the fields above.
	All bool `json:"all,omitempty"`
	// Limit is the maximum number of events; the oldest are selected first.
	// Defaults to DefaultLimit for a list and to no limit for a change.
	Limit int `json:"limit,omitempty"`
}

func (f WaitingFilter) checkChange() error {
	selects := len(f.IDs) > 0 || f.Saga+f.Key != "" || len(f.Statuses) > 0 || f.EventID != uuid.Nil || f.After != 0
	return checkChange("WaitingFilter", selects, f.All, f.Limit)
}

// args returns the parameters $1 to $7 of the statements on waiting events.
func (f WaitingFilter) args(limit int64) []any {
	statuses := make([]string, len(f.Statuses))
	for i, s := range f.Statuses {
		statuses[i] = string(s)
	}
	return []any{f.Saga, f.Key, statuses, idText(f.EventID), f.After, append([]int64{}, f.IDs...), limit}
}

// WaitingEvents returns events that wait for sagas, in the order in which they came.
func (o *Operator) WaitingEvents(ctx context.Context, f WaitingFilter) (list []WaitingEvent, err error) {
	if err := checkLimit("WaitingFilter", f.Limit); err != nil {
		return nil, err
	}
	err = o.read(ctx, func(s snapshot) error {
		list, err = s.waitingEvents(ctx, f, true)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list waiting events: %w", err)
	}
	return list, nil
}

func (s snapshot) waitingEvents(ctx context.Context, f WaitingFilter, bodies bool) ([]WaitingEvent, error) {
	return collect(ctx, s, "WaitingEvents", func(row pgx.CollectableRow, v *WaitingEvent) error {
		e := &v.Event
		var headers []byte
		var next *time.Time
		err := row.Scan(&v.ID, &v.Saga, &v.Key, &v.Status, &v.Begun, &v.State, &v.Attempts, &next, &v.ExpiresAt, &v.LastError, &v.ArrivedAt,
			&e.ID, &e.Source, &e.Topic, &e.Type, &e.Subject, &e.Sequence, &e.Previous, &e.Time, &e.Database, &e.ContentType, &headers, &e.Body)
		if err != nil {
			return err
		}
		v.NextAt = orZero(next)
		return stored.SetHeaders(e, headers)
	}, append(f.args(listLimit(f.Limit)), bodies)...)
}

// RetryWaiting makes engines apply waiting events again, with their attempts counted from 0 again, and returns how many. An
// event that had expired waits as long as it did before, and at least one hour.
func (o *Operator) RetryWaiting(ctx context.Context, f WaitingFilter) (int, error) {
	return o.changeWaiting(ctx, f, ActionRetryWaiting, "RetryWaiting")
}

// DiscardWaiting deletes waiting events without applying them and returns how many. Events that wait behind them are
// processed.
func (o *Operator) DiscardWaiting(ctx context.Context, f WaitingFilter) (int, error) {
	return o.changeWaiting(ctx, f, ActionDiscardWaiting, "DiscardWaiting")
}

func (o *Operator) changeWaiting(ctx context.Context, f WaitingFilter, action Action, query string) (n int, err error) {
	if err := f.checkChange(); err != nil {
		return 0, err
	}
	selected := f
	selected.IDs = selected.IDs[:min(len(selected.IDs), MaxAuditIDs)]
	op, err := o.operation(ctx, action, selected)
	if err != nil {
		return 0, err
	}
	err = op.inTx(ctx, func(tx pgx.Tx) (c changed, err error) {
		rows, err := tx.Query(ctx, o.sql.Get(query), f.args(changeLimit(f.Limit))...)
		if err != nil {
			return c, err
		}
		var v waitingState
		var before []waitingState
		_, err = pgx.ForEachRow(rows, []any{&v.ID, &v.Saga, &v.Key, &v.EventID, &v.Type, &v.Status, &v.Attempts, &v.LastError}, func() error {
			c.add(strconv.FormatInt(v.ID, 10), v.EventID.String(), v.Key)
			if len(before) < maxStates {
				v.LastError = printable.Cut(v.LastError, maxAuditError)
				before = append(before, v)
			}
			return nil
		})
		c.before, n = before, c.n
		return c, err
	})
	if err != nil {
		return 0, fmt.Errorf("change waiting events (%s): %w", action, err)
	}
	return n, nil
}

// waitingState is the state of a waiting event in the audit.
type waitingState struct {
	ID        int64         `json:"id"`
	Saga      string        `json:"saga"`
	Key       string        `json:"key"`
	EventID   uuid.UUID     `json:"event_id"`
	Type      string        `json:"type"`
	Status    WaitingStatus `json:"status"`
	Attempts  int           `json:"attempts"`
	LastError string        `json:"last_error,omitempty"`
}
