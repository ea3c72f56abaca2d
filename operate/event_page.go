package operate

import (
	"context"
	_ "embed"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

//go:embed event_page.sql
var eventPageSQL string

const (
	// defaultPage is the number of rows of a page.
	defaultPage = 50
	// maxScan is how many rows are looked at for one page.
	maxScan = 5000
)

// EventPageFilter selects events of the outbox. An event is selected if it matches all fields that are set.
type EventPageFilter struct {
	Topic, Type, Source, Subject string
	Since                        time.Time // recorded at Since or later, by the time of the event's id
	Until                        time.Time // recorded before Until
	After                        Cursor    // of the page before
	Limit                        int       // the maximum number of events. Defaults to 50.
}

// EventRow is an event of a list.
type EventRow struct {
	ID         uuid.UUID `json:"id"`
	Source     string    `json:"source"`
	Topic      string    `json:"topic"`
	Type       string    `json:"type"`
	Subject    string    `json:"subject,omitempty"`
	Sequence   int64     `json:"sequence,omitempty"`
	RecordedAt time.Time `json:"recorded_at"`
	AckedAt    time.Time `json:"acked_at,omitzero"`  // zero: it is owed
	Rejected   string    `json:"rejected,omitempty"` // why the broker rejects it; empty: it doesn't
}

// EventPage is a page of a search.
type EventPage struct {
	Events []EventRow `json:"events"` // the newest first
	Next   Cursor     `json:"next,omitempty"`
	// ScannedTo is set if the page is short because enough rows were looked at for it: the search has come to this time, and Next
	// continues.
	ScannedTo time.Time `json:"scanned_to,omitzero"`
}

// EventPage searches the outbox, the newest events first. The streams of a subject are found by an index. A search looks at up to 5,000
// events for a page, those of a subject at as many of each of its streams.
func (o *Operator) EventPage(ctx context.Context, f EventPageFilter) (*EventPage, error) {
	if err := checkLimit("EventPageFilter", f.Limit); err != nil {
		return nil, err
	}
	if f.Limit == 0 {
		f.Limit = defaultPage
	}
	end := uuid.Max.String()
	if !f.Until.IsZero() {
		end = idAt(f.Until).String()
	}
	after := []string{end, strconv.FormatInt(math.MaxInt64, 10), ""}
	key, err := f.After.key("EventPageFilter", after...)
	if err != nil {
		return nil, err
	}
	id, err := uuid.Parse(key[0])
	if err != nil {
		return nil, cursorError("EventPageFilter")
	}
	sequence, err := strconv.ParseInt(key[1], 10, 64)
	if err != nil {
		return nil, cursorError("EventPageFilter")
	}
	lowest := uuid.Nil
	if !f.Since.IsZero() {
		lowest = idAt(f.Since)
	}
	p := &EventPage{}
	err = o.read(ctx, func(s snapshot) error {
		args := []any{id.String(), lowest.String(), f.Topic, f.Type, f.Source, f.Subject, f.Limit + 1}
		if f.Subject != "" && key[2] != "scan" {
			if ordered, err := s.eventsOfSubject(ctx, p, append(args, sequence, end, f.scanOfSubject()), f.Limit); err != nil || ordered || f.After != "" {
				return err
			}
		}
		return s.scanEvents(ctx, p, args, f.Limit)
	})
	if err != nil {
		return nil, fmt.Errorf("search events: %w", err)
	}
	return p, nil
}

// scanOfSubject is how many events of each stream are looked at: no more than are wanted if each matches.
func (f *EventPageFilter) scanOfSubject() int {
	if f.Type == "" && f.Since.IsZero() && f.Until.IsZero() {
		return f.Limit + 1
	}
	return max(maxScan, f.Limit+1)
}

// eventsOfSubject reads a page of the streams of a subject. ordered is false if there are none.
func (s snapshot) eventsOfSubject(ctx context.Context, p *EventPage, args []any, limit int) (ordered bool, err error) {
	var sequence *int64
	var last *string
	var reached *time.Time
	list, err := collect(ctx, s, "EventPageOfSubject", func(row pgx.CollectableRow, e *EventRow) error {
		return e.scan(row, &sequence, &last, &reached)
	}, args...)
	if err != nil {
		return false, err
	}
	if len(list) == 1 && list[0].ID == uuid.Nil { // the row that says how far it went
		list = nil
	}
	p.Events, p.Next = page(list, int64(limit), func(e EventRow) Cursor {
		return newCursor(e.ID.String(), strconv.FormatInt(e.Sequence, 10), "stream")
	})
	if p.Next == "" && last != nil {
		p.Next, p.ScannedTo = newCursor(*last, strconv.FormatInt(*sequence, 10), "stream"), *reached
	}
	return len(list) > 0 || last != nil, nil
}

// scanEvents reads a page by looking at the next rows.
func (s snapshot) scanEvents(ctx context.Context, p *EventPage, args []any, limit int) error {
	var scanned int64
	var last *string
	var reached *time.Time
	list, err := collect(ctx, s, "EventPage", func(row pgx.CollectableRow, e *EventRow) error {
		return e.scan(row, &scanned, &last, &reached)
	}, append(args, maxScan)...)
	if err != nil {
		return err
	}
	if len(list) == 1 && list[0].ID == uuid.Nil { // the row that says how far it went
		list = nil
	}
	p.Events, p.Next = page(list, int64(limit), func(e EventRow) Cursor { return newCursor(e.ID.String(), "0", "scan") })
	if p.Next == "" && scanned == maxScan {
		p.Next, p.ScannedTo = newCursor(*last, "0", "scan"), *reached
	}
	return nil
}

func (e *EventRow) scan(row pgx.CollectableRow, more ...any) error {
	var id, source, topic, eventType, subject, rejected *string
	var sequence *int64
	var recorded, acked *time.Time
	err := row.Scan(append([]any{&id, &source, &topic, &eventType, &subject, &sequence, &recorded, &acked, &rejected}, more...)...)
	if err != nil || id == nil {
		return err
	}
	*e = EventRow{Source: *source, Topic: *topic, Type: *eventType, Subject: *subject, Sequence: *sequence, RecordedAt: *recorded, AckedAt: orZero(acked)}
	if rejected != nil {
		e.Rejected = *rejected
	}
	e.ID, err = uuid.Parse(*id)
	return err
}
