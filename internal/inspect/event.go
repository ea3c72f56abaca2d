package inspect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// ErrUnknownEvent: no table has the event. Of an ordered event that came from elsewhere and was handled nothing remains
// but the position of its stream; its publisher's database knows it.
var ErrUnknownEvent = errors.New("unknown event")

// Event is what a database knows of an event.
type Event struct {
	ID          uuid.UUID `json:"id"`
	Type        string    `json:"type,omitempty"` // what follows is empty where nothing but an inbox knows the event
	Source      string    `json:"source,omitempty"`
	Topic       string    `json:"topic,omitempty"`
	Subject     string    `json:"subject,omitempty"`
	Sequence    int64     `json:"sequence,omitempty"`
	Previous    int64     `json:"previous,omitempty"`
	RecordedAt  time.Time `json:"recorded_at,omitzero"`
	ContentType string    `json:"content_type,omitempty"`
	TimeoutKey  string    `json:"timeout_key,omitempty"`
	TimeoutName string    `json:"timeout_name,omitempty"`
	Body        []byte    `json:"-"`

	InOutbox  bool       `json:"in_outbox"`         // of this database
	AckedAt   time.Time  `json:"acked_at,omitzero"` // when the broker had confirmed it; zero and InOutbox: it is owed
	Consumers []Consumer `json:"consumers"`
}

// State is what has become of an event for a consumer.
type State string

// States of an event. Handled is also what was stepped over for want of a handler, or discarded: an ordered consumer
// keeps its position and no more.
const (
	Handled State = "handled"
	Retry   State = "retry"    // parked until its next attempt
	Gap     State = "gap"      // parked until an event before it is handled
	Dead    State = "dead"     // a dead letter
	NotSeen State = "not_seen" // the consumer reads the topic; it may also have stepped over an event without order
	NoTrace State = "no_trace" // of a timeout, which leaves nothing once it is handled
)

// Consumer is what one that reads the topic knows of an event.
type Consumer struct {
	Name      string    `json:"name"`
	BornAt    time.Time `json:"born_at,omitzero"` // when it was first started to read the topic
	State     State     `json:"state"`
	Position  int64     `json:"position,omitempty"`  // in the event's stream
	HandledAt time.Time `json:"handled_at,omitzero"` // of ordered events only is known that, not when
	Parked    *Parked   `json:"parked,omitempty"`    // in the states Retry, Gap and Dead
}

// Parked is how an event is parked.
type Parked struct {
	Attempts  int       `json:"attempts"`
	NextAt    time.Time `json:"next_at,omitzero"` // zero: not before what it waits behind is done
	LastError string    `json:"last_error,omitempty"`
	At        time.Time `json:"parked_at"`
	Behind    *Behind   `json:"behind,omitempty"` // the first that is parked of its stream, unless that is the event itself
}

// Behind is a parked event that holds others up.
type Behind struct {
	EventID uuid.UUID `json:"event_id"`
	Reason  State     `json:"reason"`
}

// Event returns what is known of an event, or ErrUnknownEvent.
func (r *Reader) Event(ctx context.Context, id uuid.UUID) (*Event, error) {
	e := &Event{ID: id}
	known, err := r.event(ctx, e)
	if err != nil {
		return nil, fmt.Errorf("read event %s: %w", id, err)
	}
	e.Consumers, err = collect(ctx, r, "EventConsumers", e.scanConsumer, id.String(), e.Source, e.Topic, e.Subject, e.Sequence, maxRows)
	if err != nil {
		return nil, fmt.Errorf("read consumers of event %s: %w", id, err)
	}
	for _, c := range e.Consumers {
		known = known || !c.HandledAt.IsZero()
	}
	if !known {
		return nil, ErrUnknownEvent
	}
	return e, nil
}

// event reads the event itself, if there is a copy.
func (r *Reader) event(ctx context.Context, e *Event) (found bool, err error) {
	fields := []any{&e.Source, &e.Topic, &e.Type, &e.Subject, &e.Sequence, &e.Previous, &e.RecordedAt, &e.ContentType, &e.Body}
	var acked *time.Time
	err = r.tx.QueryRow(ctx, r.sql.Get("Event"), e.ID.String()).Scan(append(fields, &acked)...)
	if err == nil {
		e.InOutbox, e.AckedAt = true, orZero(acked)
		return true, nil
	}
	if errors.Is(err, pgx.ErrNoRows) {
		err = r.tx.QueryRow(ctx, r.sql.Get("ParkedEvent"), e.ID.String()).Scan(append(fields, &e.TimeoutKey, &e.TimeoutName)...)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

func (e *Event) scanConsumer(row pgx.CollectableRow, c *Consumer) error {
	var (
		born, handledAt, next, parkedAt *time.Time
		reason, lastError               *string
		attempts                        *int
		headID                          *uuid.UUID
		headReason                      *string
	)
	err := row.Scan(&c.Name, &born, &c.Position, &handledAt, &reason, &attempts, &next, &lastError, &parkedAt, &headID, &headReason)
	if err != nil {
		return err
	}
	c.BornAt = orZero(born)
	c.HandledAt = orZero(handledAt)
	switch {
	case reason != nil:
		c.State = State(*reason)
		c.Parked = &Parked{Attempts: *attempts, NextAt: orZero(next), LastError: *lastError, At: *parkedAt}
		if headID != nil {
			c.Parked.Behind = &Behind{*headID, State(*headReason)}
		}
	case handledAt != nil, e.Sequence > 0 && c.Position >= e.Sequence:
		c.State = Handled
	case e.TimeoutName != "":
		c.State = NoTrace
	default:
		c.State = NotSeen
	}
	return nil
}
