package operate

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/stored"
)

//go:embed event.sql
var eventSQL string

// ErrUnknownEvent means that no table of the schema has the event. Of an ordered event that another service published and
// that was handled, only the position of its stream remains: look for the event in the publisher's schema.
var ErrUnknownEvent = errors.New("unknown event")

// EventStatus is a report on one event: what the tables of the schema have about it. If only the inbox has the event, the
// fields from Type to Body are empty.
type EventStatus struct {
	ID          uuid.UUID         `json:"id"`
	Type        string            `json:"type,omitempty"`
	Source      string            `json:"source,omitempty"`
	Topic       string            `json:"topic,omitempty"`
	Subject     string            `json:"subject,omitempty"`
	Sequence    int64             `json:"sequence,omitempty"`
	Previous    int64             `json:"previous,omitempty"`
	RecordedAt  time.Time         `json:"recorded_at,omitzero"`
	ContentType string            `json:"content_type,omitempty"`
	DataSchema  string            `json:"data_schema,omitempty"` // the URI of the schema of its body
	Extensions  map[string]string `json:"extensions,omitempty"`  // CloudEvents attributes of the application
	TimeoutKey  string            `json:"timeout_key,omitempty"`
	TimeoutName string            `json:"timeout_name,omitempty"`
	Body        []byte            `json:"-"`
	// Ended is what became of the timeout that has the event; nil: it has not ended, or that is not kept any more, or it is no
	// timeout's event. If nothing else has the event, RecordedAt is when the timeout was armed, and there is no body.
	Ended *EndedTimeout `json:"ended,omitempty"`

	InOutbox  bool             `json:"in_outbox"`           // recorded in this schema
	AckedAt   time.Time        `json:"acked_at,omitzero"`   // when its acknowledgement was recorded; zero and InOutbox: it is owed
	Rejected  *Rejection       `json:"rejected,omitempty"`  // nil: the broker doesn't reject it
	Discarded *Discarded       `json:"discarded,omitempty"` // nil: no operator discarded it
	Cause     *Cause           `json:"cause,omitempty"`     // nil: no handler published it, or an older version did
	Consumers []ConsumerStatus `json:"consumers"`           // of those that read the topic or have had the event
}

// Cause says that a handler published an event while it handled another, with the context that it was called with.
type Cause struct {
	Consumer string    `json:"consumer"`
	EventID  uuid.UUID `json:"event_id"` // of what it handled
}

// Rejection says why the broker rejects an event.
type Rejection struct {
	Reason   string    `json:"reason"`
	Attempts int       `json:"attempts"`
	Since    time.Time `json:"since"`
}

// Discarded says that an operator discarded an owed event. An ordered event was replaced by one of DiscardedType.
type Discarded struct {
	Type   string    `json:"type"` // the type of the discarded event
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// HandlingState is the state of an event in a consumer.
type HandlingState string

// The values of HandlingState.
const (
	StateHandled   HandlingState = "handled"   // its effect is committed, it was discarded, or the consumer has no handler for it
	StateRetry     HandlingState = "retry"     // parked until its next attempt
	StateGap       HandlingState = "gap"       // parked until an event before it is handled
	StateBusy      HandlingState = "busy"      // parked until the handler of its stream, which takes long, has returned
	StatePaused    HandlingState = "paused"    // parked until an operator resumes its handler or its stream: see Resume
	StateUnhandled HandlingState = "unhandled" // parked until a process with its handler takes it: see RetireHandler
	StateDead      HandlingState = "dead"      // a dead letter
	StateNotSeen   HandlingState = "not_seen"  // not received; or not ordered, and the consumer has no handler for it
	StateNoTrace   HandlingState = "no_trace"  // an event of a timeout: see EventStatus.Ended for what is recorded of it once it is handled
)

// ConsumerStatus is the status of an event in one consumer.
type ConsumerStatus struct {
	Name      string        `json:"name"`
	BornAt    time.Time     `json:"born_at,omitzero"` // when it first began to read the topic
	State     HandlingState `json:"state"`
	Position  int64         `json:"position,omitempty"`  // in the event's stream
	HandledAt time.Time     `json:"handled_at,omitzero"` // zero for ordered events, of which only the position is recorded
	Parked    *ParkedStatus `json:"parked,omitempty"`    // nil: it isn't parked
}

// ParkedStatus says how an event is parked.
type ParkedStatus struct {
	Attempts  int       `json:"attempts"`         // failed so far
	NextAt    time.Time `json:"next_at,omitzero"` // zero: when another event or an operator makes it due
	LastError string    `json:"last_error,omitempty"`
	At        time.Time `json:"parked_at"`
	Behind    *Blocker  `json:"behind,omitempty"` // the first parked event of its stream, unless that is the event itself
}

// Blocker is a parked event that the later events of its stream wait for.
type Blocker struct {
	EventID uuid.UUID     `json:"event_id"`
	Reason  HandlingState `json:"reason"`
}

// EventStatus returns the report on an event. The error matches ErrUnknownEvent if no table of the schema has it.
func (o *Operator) EventStatus(ctx context.Context, id uuid.UUID) (*EventStatus, error) {
	e := &EventStatus{ID: id}
	err := o.read(ctx, func(s snapshot) error { return s.eventStatus(ctx, e) })
	if err != nil {
		return nil, fmt.Errorf("read event %s: %w", id, err)
	}
	return e, nil
}

func (s snapshot) eventStatus(ctx context.Context, e *EventStatus) error {
	known, err := s.event(ctx, e)
	if err != nil {
		return err
	}
	var d Discarded
	switch err := s.tx.QueryRow(ctx, s.sql.Get("Discarded"), e.ID.String()).Scan(&d.Type, &d.Reason, &d.At); {
	case err == nil:
		e.Discarded, known = &d, true
	case !errors.Is(err, pgx.ErrNoRows):
		return err
	}
	e.Consumers, err = collect(ctx, s, "EventConsumers", e.scanConsumer, e.ID.String(), e.Source, e.Topic, e.Subject, e.Sequence, maxRows)
	if err != nil {
		return fmt.Errorf("consumers: %w", err)
	}
	for _, c := range e.Consumers {
		known = known || !c.HandledAt.IsZero()
	}
	if !known {
		return ErrUnknownEvent
	}
	return nil
}

// event reads the event itself, from the outbox or from a consumer's parked events.
func (s snapshot) event(ctx context.Context, e *EventStatus) (found bool, err error) {
	var headers []byte
	fields := []any{&e.Source, &e.Topic, &e.Type, &e.Subject, &e.Sequence, &e.Previous, &e.RecordedAt, &e.ContentType, &headers, &e.Body}
	var acked, since *time.Time
	var reason *string
	var attempts *int
	var cause *uuid.UUID
	var consumer *string
	err = s.tx.QueryRow(ctx, s.sql.Get("Event"), e.ID.String()).Scan(append(fields, &acked, &reason, &attempts, &since, &cause, &consumer)...)
	if errors.Is(err, pgx.ErrNoRows) { // the outbox has no event of a timeout
		var ended error
		if e.Ended, ended = s.endedTimeout(ctx, e.ID); ended != nil {
			return false, ended
		}
	}
	switch {
	case err == nil:
		e.InOutbox, e.AckedAt = true, orZero(acked)
		if cause != nil && consumer != nil {
			e.Cause = &Cause{*consumer, *cause}
		}
		if reason != nil {
			e.Rejected = &Rejection{*reason, *attempts, *since}
		}
	case errors.Is(err, pgx.ErrNoRows):
		err = s.tx.QueryRow(ctx, s.sql.Get("ParkedEvent"), e.ID.String()).Scan(append(fields, &e.TimeoutKey, &e.TimeoutName)...)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		if t := e.Ended; t != nil {
			e.Topic, e.Type, e.Subject, e.RecordedAt, e.TimeoutKey, e.TimeoutName = t.Topic, t.Type, t.Subject, t.ArmedAt, t.Key, t.Name
		}
		return e.Ended != nil, nil
	}
	if err != nil {
		return false, err
	}
	attributes := rocketflow.Event{ID: e.ID}
	err = stored.SetHeaders(&attributes, headers)
	e.DataSchema, e.Extensions = attributes.DataSchema, attributes.Extensions
	return true, err
}

func (e *EventStatus) scanConsumer(row pgx.CollectableRow, c *ConsumerStatus) error {
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
		c.State = HandlingState(*reason)
		c.Parked = &ParkedStatus{Attempts: *attempts, NextAt: orZero(next), LastError: *lastError, At: *parkedAt}
		if headID != nil {
			c.Parked.Behind = &Blocker{*headID, HandlingState(*headReason)}
		}
	case handledAt != nil, e.Sequence > 0 && c.Position >= e.Sequence:
		c.State = StateHandled
	case e.TimeoutName != "":
		c.State = StateNoTrace
	default:
		c.State = StateNotSeen
	}
	return nil
}
