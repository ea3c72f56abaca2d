package operate

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

//go:embed waiting_page.sql
var waitingPageSQL string

// WaitingPageFilter selects events that wait for sagas. An event is selected if it matches all fields that are set.
type WaitingPageFilter struct {
	// Stopped selects the events that failed or expired, which only an operator has applied: the longest so first. Otherwise the list is
	// in the order in which the events came.
	Stopped   bool
	Saga, Key string
	Status    WaitingStatus
	After     Cursor // of the page before
	Limit     int    // the maximum number of events. Defaults to 50.
}

// WaitingRow is an event of a list that waits for a saga, without its body.
type WaitingRow struct {
	ID        int64         `json:"id"` // identifies it in a WaitingFilter
	Saga      string        `json:"saga"`
	Key       string        `json:"key"`
	Status    WaitingStatus `json:"status"`
	Begun     bool          `json:"begun"`
	State     string        `json:"state,omitempty"` // of the saga when the event came; empty: the saga had not begun
	Attempts  int           `json:"attempts"`
	NextAt    time.Time     `json:"next_at,omitzero"`
	ExpiresAt time.Time     `json:"expires_at"`
	LastError string        `json:"last_error,omitempty"`
	ArrivedAt time.Time     `json:"arrived_at"`
	ChangedAt time.Time     `json:"changed_at"` // when Status or Attempts changed
	EventID   uuid.UUID     `json:"event_id"`
	Source    string        `json:"source"`
	Topic     string        `json:"topic"`
	Type      string        `json:"type"`
	Subject   string        `json:"subject,omitempty"`
	Size      int           `json:"size"` // of its body, in bytes
}

// WaitingPage is a page of events that wait for sagas.
type WaitingPage struct {
	Events []WaitingRow `json:"events"`
	Next   Cursor       `json:"next,omitempty"`
	// Partial is set if the page is short because enough rows were looked at for it: Next continues.
	Partial bool `json:"partial,omitempty"`
}

// WaitingPage lists events that wait for sagas. It looks at up to 5,000 rows for a page, and at all of a key.
func (o *Operator) WaitingPage(ctx context.Context, f WaitingPageFilter) (*WaitingPage, error) {
	if err := checkLimit("WaitingPageFilter", f.Limit); err != nil {
		return nil, err
	}
	if f.Limit == 0 {
		f.Limit = defaultPage
	}
	var at *time.Time // null: from the beginning
	id := int64(0)
	if f.After != "" {
		key, err := f.After.key("WaitingPageFilter", "", "")
		if err != nil {
			return nil, err
		}
		t, errAt := time.Parse(time.RFC3339Nano, key[0])
		if id, err = strconv.ParseInt(key[1], 10, 64); err != nil || errAt != nil {
			return nil, cursorError("WaitingPageFilter")
		}
		at = &t
	}
	look := f.Limit + 1
	if f.Saga != "" || f.Status != "" {
		look = max(look, maxScan)
	}
	cursor := func(at time.Time, id int64) Cursor {
		return newCursor(at.UTC().Format(time.RFC3339Nano), strconv.FormatInt(id, 10))
	}
	p := &WaitingPage{}
	err := o.read(ctx, func(s snapshot) error {
		var scanned int
		var reached, last *time.Time
		var lastID *int64
		var places []time.Time
		list, err := collect(ctx, s, "WaitingPage", func(row pgx.CollectableRow, v *WaitingRow) error {
			if err := v.scan(row, &reached, &scanned, &last, &lastID); err != nil || reached == nil {
				return err
			}
			places = append(places, *reached)
			return nil
		}, f.Stopped, f.Saga, f.Key, string(f.Status), at, id, f.Limit+1, look)
		switch {
		case err != nil:
			return err
		case len(list) > f.Limit:
			list = list[:f.Limit]
			p.Next = cursor(places[f.Limit-1], list[f.Limit-1].ID)
		case scanned == look:
			p.Next, p.Partial = cursor(*last, *lastID), true
		}
		p.Events = list[:min(len(list), len(places))] // not the row that says how far it went
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list waiting events: %w", err)
	}
	return p, nil
}

// scan reads a row of WaitingPage. at is null if the row has no event.
func (v *WaitingRow) scan(row pgx.CollectableRow, at **time.Time, more ...any) error {
	var id *int64
	var saga, key, status, state, lastError, event, source, topic, eventType, subject *string
	var begun *bool
	var attempts, size *int
	var next, expires, arrived, changed *time.Time
	err := row.Scan(append([]any{at, &id, &saga, &key, &status, &begun, &state, &attempts, &next, &expires, &lastError, &arrived, &changed, &event, &source, &topic,
		&eventType, &subject, &size}, more...)...)
	if err != nil || id == nil {
		*at = nil
		return err
	}
	*v = WaitingRow{
		ID: *id, Saga: *saga, Key: *key, Status: WaitingStatus(*status), Begun: *begun, State: *state, Attempts: *attempts, NextAt: orZero(next), ExpiresAt: *expires,
		LastError: *lastError, ArrivedAt: *arrived, ChangedAt: *changed, Source: *source, Topic: *topic, Type: *eventType, Subject: *subject, Size: *size,
	}
	v.EventID, err = uuid.Parse(*event)
	return err
}
