package operate

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/valid"
	"github.com/rocketflow/rocketflow/internal/wire"
)

//go:embed rejected.sql
var rejectedSQL string

// DiscardedType is the type of the event that replaces, in its stream, an event that was discarded or redirected to another
// topic. Its body is JSON with the members type (of the event that it replaces) and reason. Consumers without a handler for
// it, which is the usual case, skip it.
const DiscardedType = "rocketflow.discarded"

const (
	changePage = 200 // rejected events that are changed in one transaction
	maxReason  = 500 // maximum length of a reason, in bytes
)

// RejectedEvent is an owed event that the broker has rejected: its topic or a right is missing, or it is too large. The outbox
// retries it until the broker accepts it or an operator redirects or discards it.
type RejectedEvent struct {
	Event      rocketflow.Event // without headers and body
	Size       int              // of the body, in bytes
	Reason     string           // the broker's error for the last attempt
	Attempts   int              // rejected so far
	RejectedAt time.Time        // when it was rejected for the first time
	NextAt     time.Time        // when it is tried again; zero: as soon as the broker accepts another event of its topic
}

// RejectedTopic is a topic whose events the broker rejects, all of them. The outbox tries one event of it at NextAt, and the
// others as soon as that one is accepted.
type RejectedTopic struct {
	Topic      string
	Reason     string // the broker's error for the last attempt
	Events     int64  // rejected events of the topic; ends at MaxCount
	Attempts   int    // rejected so far
	RejectedAt time.Time
	NextAt     time.Time
}

// RejectedFilter selects rejected events. An event is selected if it matches all fields that are set.
type RejectedFilter struct {
	EventID uuid.UUID `json:"event_id,omitzero"`
	Source  string    `json:"source,omitempty"`
	Topic   string    `json:"topic,omitempty"`
	Type    string    `json:"type,omitempty"`
	Subject string    `json:"subject,omitempty"`
	// All selects every rejected event. A change requires either All or one of the fields above.
	All bool `json:"all,omitempty"`
	// Limit is the maximum number of events; the oldest are selected first.
	// Defaults to DefaultLimit for a list and to no limit for a change.
	Limit int `json:"limit,omitempty"`
}

func (f RejectedFilter) checkChange() error {
	selects := f.EventID != uuid.Nil || f.Source+f.Topic+f.Type+f.Subject != ""
	return checkChange("RejectedFilter", selects, f.All, f.Limit)
}

// RejectedEvents returns rejected events, the oldest first.
func (o *Operator) RejectedEvents(ctx context.Context, f RejectedFilter) ([]RejectedEvent, error) {
	if err := checkLimit("RejectedFilter", f.Limit); err != nil {
		return nil, err
	}
	return o.rejectedEvents(ctx, f, listLimit(f.Limit))
}

// rejectedEvents reads the pages of a list.
func (o *Operator) rejectedEvents(ctx context.Context, f RejectedFilter, limit int64) (list []RejectedEvent, err error) {
	for after := ""; ; {
		p, err := o.rejectedPage(ctx, f, after, int(min(limit-int64(len(list)), maxScan)))
		if err != nil {
			return nil, err
		}
		list = append(list, p.Events...)
		if after = p.after; after == "" || int64(len(list)) >= limit {
			return list, nil
		}
	}
}

// RejectedPageFilter selects rejected events. An event is selected if it matches all fields that are set.
type RejectedPageFilter struct {
	Source, Topic, Type, Subject string
	EventID                      uuid.UUID
	After                        Cursor // of the page before
	Limit                        int    // the maximum number of events. Defaults to 50.
}

// RejectedPage is a page of rejected events.
type RejectedPage struct {
	Events []RejectedEvent // the oldest first
	Next   Cursor
	// Partial is set if the page is short because enough rows were looked at for it: Next continues.
	Partial bool

	after string // the id of the event after which the next page begins; empty: there is none
}

// RejectedPage lists rejected events. It looks at up to 5,000 of them for a page, those of a topic by an index.
func (o *Operator) RejectedPage(ctx context.Context, f RejectedPageFilter) (*RejectedPage, error) {
	if err := checkLimit("RejectedPageFilter", f.Limit); err != nil {
		return nil, err
	}
	key, err := f.After.key("RejectedPageFilter", uuid.Nil.String())
	if err != nil {
		return nil, err
	}
	if _, err := uuid.Parse(key[0]); err != nil {
		return nil, cursorError("RejectedPageFilter")
	}
	filter := RejectedFilter{EventID: f.EventID, Source: f.Source, Topic: f.Topic, Type: f.Type, Subject: f.Subject}
	p, err := o.rejectedPage(ctx, filter, key[0], cmp.Or(f.Limit, defaultPage))
	if err == nil && p.after != "" {
		p.Next = newCursor(p.after)
	}
	return p, err
}

// rejectedPage reads the next page after an event; empty: from the beginning.
func (o *Operator) rejectedPage(ctx context.Context, f RejectedFilter, after string, limit int) (*RejectedPage, error) {
	look := limit + 1
	if f.Source+f.Type+f.Subject != "" {
		look = max(look, maxScan)
	}
	p := &RejectedPage{}
	var scanned int
	var last *string
	var list []*RejectedEvent
	err := o.read(ctx, func(s snapshot) (err error) {
		list, err = collect(ctx, s, "RejectedEvents", func(row pgx.CollectableRow, v **RejectedEvent) (err error) {
			*v, err = scanRejected(row, &scanned, &last)
			return err
		}, idText(f.EventID), f.Source, f.Topic, f.Type, f.Subject, cmp.Or(after, uuid.Nil.String()), limit+1, look)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list rejected events: %w", err)
	}
	for _, r := range list {
		if r != nil { // not the row that says how far it went
			p.Events = append(p.Events, *r)
		}
	}
	switch {
	case len(p.Events) > limit:
		p.Events = p.Events[:limit]
		p.after = p.Events[limit-1].Event.ID.String()
	case scanned == look:
		p.after, p.Partial = *last, true
	}
	return p, nil
}

// scanRejected reads a row of RejectedEvents; nil: it has no event.
func scanRejected(row pgx.Row, more ...any) (*RejectedEvent, error) {
	var id, source, topic, eventType, subject, contentType, reason *string
	var sequence, previous *int64
	var recorded, rejected, next *time.Time
	var size, attempts *int
	err := row.Scan(append([]any{&id, &source, &topic, &eventType, &subject, &sequence, &previous, &recorded, &contentType, &size, &reason, &attempts, &rejected, &next},
		more...)...)
	if err != nil || id == nil {
		return nil, err
	}
	r := &RejectedEvent{
		Event: rocketflow.Event{
			Source: *source, Topic: *topic, Type: *eventType, Subject: *subject, Sequence: *sequence, Previous: *previous, Time: *recorded, ContentType: *contentType,
		},
		Size: *size, Reason: *reason, Attempts: *attempts, RejectedAt: *rejected, NextAt: orZero(next),
	}
	r.Event.ID, err = uuid.Parse(*id)
	return r, err
}

// RejectedTopics returns the topics whose events the broker rejects, in alphabetical order and at most 1,000.
func (o *Operator) RejectedTopics(ctx context.Context) ([]RejectedTopic, error) {
	rows, err := o.db().Query(ctx, o.sql.Get("RejectedTopics"), maxRows, MaxCount)
	if err != nil {
		return nil, fmt.Errorf("list rejected topics: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[RejectedTopic])
	if err != nil {
		return nil, fmt.Errorf("list rejected topics: %w", err)
	}
	return list, nil
}

// RetryRejected makes rejected events due: the next sweep sends them again. Of a rejected topic one event is tried first. It
// returns how many events it made due; with an error, how many before that.
func (o *Operator) RetryRejected(ctx context.Context, f RejectedFilter) (int, error) {
	return o.changeRejected(ctx, f, ActionRetryRejected, nil, func(ctx context.Context, tx pgx.Tx, ids []string) error {
		_, err := tx.Exec(ctx, o.sql.Get("RetryRejected"), ids)
		return err
	})
}

// DiscardRejected gives up rejected events and returns how many; with an error, how many before that. In an ordered stream an
// event of DiscardedType replaces each, with the same id, sequence and predecessor, so that consumers don't wait for it.
// That event is sent like any other. If the broker rejects all events of the topic it isn't sent, but kept for
// outbox.Config.Retention for consumers that request missing events. The discarded events are kept unchanged in the table
// outbox_discarded for the same time.
//
// An event that the sweep is sending at the same moment may still be delivered unchanged.
//
// reason is part of the body of the replacing event.
// Defaults to "discarded by an operator".
func (o *Operator) DiscardRejected(ctx context.Context, f RejectedFilter, reason string) (int, error) {
	reason = printable.Text(cmp.Or(reason, "discarded by an operator"), maxReason)
	return o.changeRejected(ctx, f, ActionDiscardRejected, map[string]string{"type": DiscardedType, "reason": reason}, func(ctx context.Context, tx pgx.Tx, ids []string) error {
		_, err := tx.Exec(ctx, o.sql.Get("DiscardRejected"), ids, reason, DiscardedType)
		return err
	})
}

// RedirectRejected moves rejected events to another topic and returns how many; with an error, how many before that. They keep
// id, source, type, subject, time and body. An ordered event takes the next place in the stream of its source and subject
// in the new topic, behind what was published there in the meantime; redirected events keep their order among each other.
// In the old topic an event of DiscardedType and of another id replaces it: see DiscardRejected.
func (o *Operator) RedirectRejected(ctx context.Context, f RejectedFilter, topic string) (int, error) {
	if topic == "" || topic == f.Topic {
		return 0, valid.Fieldf("topic", "%q: want another topic", topic)
	}
	if err := wire.Validate(rocketflow.Event{Topic: topic, Type: DiscardedType}); err != nil {
		return 0, err
	}
	return o.changeRejected(ctx, f, ActionRedirectRejected, map[string]string{"topic": topic}, func(ctx context.Context, tx pgx.Tx, ids []string) error {
		for _, id := range ids {
			replacement, err := uuid.NewV7()
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, o.sql.Get("RedirectRejected"), id, topic, replacement.String(), DiscardedType); err != nil {
				return err
			}
		}
		return nil
	})
}

// changeRejected calls fn with pages of the events that f selects now, each in a transaction, locked and in the order of
// streams.
func (o *Operator) changeRejected(ctx context.Context, f RejectedFilter, action Action, after any, fn func(ctx context.Context, tx pgx.Tx, ids []string) error) (n int, err error) {
	if err := f.checkChange(); err != nil {
		return 0, err
	}
	op, err := o.operation(ctx, action, f)
	if err != nil {
		return 0, err
	}
	list, err := o.rejectedEvents(ctx, f, changeLimit(f.Limit))
	if err != nil {
		return 0, err
	}
	byID := map[string]RejectedEvent{}
	slices.SortStableFunc(list, func(a, b RejectedEvent) int {
		x, y := a.Event, b.Event
		return cmp.Or(cmp.Compare(x.Source, y.Source), cmp.Compare(x.Subject, y.Subject), cmp.Compare(x.Sequence, y.Sequence))
	})
	for page := range slices.Chunk(list, changePage) {
		ids := make([]string, len(page))
		for i, e := range page {
			ids[i] = e.Event.ID.String()
			byID[ids[i]] = e
		}
		err := op.inTx(ctx, func(tx pgx.Tx) (c changed, err error) {
			rows, err := tx.Query(ctx, o.sql.Get("LockRejected"), ids)
			if err != nil {
				return c, err
			}
			if ids, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
				return c, err
			}
			var before []rejectedState
			for _, id := range ids[:min(len(ids), maxStates)] {
				r := byID[id]
				before = append(before, rejectedState{id, r.Event.Topic, r.Event.Type, r.Event.Subject, printable.Cut(r.Reason, maxAuditError)})
			}
			return changed{n: len(ids), ids: ids, before: before, after: after}, fn(ctx, tx, ids)
		})
		if err != nil {
			return n, fmt.Errorf("change rejected events (%s): %w", action, err)
		}
		n += len(ids)
	}
	return n, nil
}

// rejectedState is the state of a rejected event in the audit.
type rejectedState struct {
	EventID string `json:"event_id"`
	Topic   string `json:"topic"`
	Type    string `json:"type"`
	Subject string `json:"subject,omitempty"`
	Reason  string `json:"reason"`
}
