package operate

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/stored"
	"github.com/rocketflow/rocketflow/internal/valid"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// ErrUnknownSaga means that no such saga has begun, or that it has finished.
var ErrUnknownSaga = errors.New("no such saga runs")

// ErrSagaChanged means that a saga has made a transition since SagaEvent.Revision was read.
var ErrSagaChanged = errors.New("the saga has changed since it was read")

// ErrEventApplied means that an event with this id was applied to a saga before.
var ErrEventApplied = errors.New("an event with this id was applied before")

// SagaEvent is an event that an operator applies to one saga, such as that of a system which has lost its own.
type SagaEvent struct {
	Saga        string            `json:"saga"`                   // required: the name of the saga
	Key         string            `json:"key"`                    // required: its key
	Topic       string            `json:"topic"`                  // required: the topic and type of one of the saga's transitions
	Type        string            `json:"type"`                   // required
	Subject     string            `json:"subject,omitempty"`      // Defaults to Key.
	ContentType string            `json:"content_type,omitempty"` // Defaults to application/json.
	Headers     map[string]string `json:"-"`                      // as in rocketflow.Event
	Body        []byte            `json:"-"`                      // the encoded payload
	// EventID is the id of the event, so that a request that is repeated applies it once.
	// Defaults to a new one.
	EventID uuid.UUID `json:"event_id,omitzero"`
	// Revision is the Saga.Revision that was read: the event isn't applied to a saga that has changed since. 0: to any.
	Revision int64 `json:"revision,omitempty"`
	// Wait is how long the event waits for a state that accepts it.
	// Defaults to 1 h.
	Wait time.Duration `json:"wait,omitempty"`
}

func (e SagaEvent) withDefaults() SagaEvent {
	e.Subject, e.ContentType = orText(e.Subject, e.Key), orText(e.ContentType, rocketflow.ContentTypeJSON)
	if e.Wait == 0 {
		e.Wait = time.Hour
	}
	return e
}

func (e SagaEvent) validate() error {
	switch {
	case e.Saga == "":
		return valid.Field("operate.SagaEvent.Saga", "missing")
	case e.Key == "":
		return valid.Field("operate.SagaEvent.Key", "missing")
	case e.Revision < 0:
		return valid.Fieldf("operate.SagaEvent.Revision", "%d: want 0 for any, or more", e.Revision)
	case e.Wait < 0:
		return valid.Fieldf("operate.SagaEvent.Wait", "%v: want more than 0", e.Wait)
	case len(e.Body) > maxEditedBody:
		return valid.Fieldf("operate.SagaEvent.Body", "%d bytes: want at most %d", len(e.Body), maxEditedBody)
	}
	return nil
}

// ApplyToSaga gives a running saga an event, which nobody else gets, and returns the event's id. A process that runs the saga applies it
// within seconds, once, in a transaction as any waiting event: at once if the saga's state accepts it, or when a later one does. Until
// then it is among WaitingEvents, where it fails or expires like others. An event that no reachable state accepts is ignored. Two calls
// apply two events, unless they have the same EventID. The error matches ErrUnknownSaga if the saga has not begun, or has finished;
// ErrSagaChanged if it has not the Revision; and ErrEventApplied if an event with the EventID was applied before, as far back as the audit
// goes.
func (o *Operator) ApplyToSaga(ctx context.Context, e SagaEvent) (uuid.UUID, error) {
	e = e.withDefaults()
	if err := e.validate(); err != nil {
		return uuid.Nil, err
	}
	id := e.EventID
	if id == uuid.Nil {
		drawn, err := uuid.NewV7()
		if err != nil {
			return uuid.Nil, printable.Errorf("apply an event: draw an id: %w", err)
		}
		id = drawn
	}
	event := rocketflow.Event{ID: id, Topic: e.Topic, Type: e.Type, Subject: e.Subject, ContentType: e.ContentType, Headers: e.Headers, Body: e.Body}
	if err := wire.Validate(event); err != nil {
		return uuid.Nil, err
	}
	headers, err := stored.Headers(event)
	if err != nil {
		return uuid.Nil, err
	}
	op, err := o.operation(ctx, ActionApplyToSaga, e)
	if err != nil {
		return uuid.Nil, err
	}
	err = op.inTx(ctx, func(tx pgx.Tx) (c changed, err error) {
		var state string
		var revision, waiting int64
		var applied bool
		// The saga's row comes first, as for the engine. Once it is locked, the audit has what others have applied.
		err = tx.QueryRow(ctx, o.sql.Get("LockSaga"), e.Saga, e.Key).Scan(&state, &revision)
		if errors.Is(err, pgx.ErrNoRows) {
			return c, ErrUnknownSaga
		}
		if err != nil {
			return c, err
		}
		if e.EventID != uuid.Nil {
			if err := tx.QueryRow(ctx, o.sql.Get("AppliedBefore"), id.String(), string(ActionApplyToSaga)).Scan(&applied); err != nil {
				return c, err
			}
		}
		switch {
		case applied:
			return c, ErrEventApplied
		case e.Revision != 0 && e.Revision != revision:
			return c, ErrSagaChanged
		}
		err = tx.QueryRow(ctx, o.sql.Get("ApplyToSaga"), e.Saga, e.Key, state, e.Wait.Seconds(), id.String(), e.Topic, e.Type, e.Subject, e.ContentType,
			headers, stored.Body(event)).Scan(&waiting)
		c.add(id.String(), e.Key)
		c.before = map[string]string{"state": state}
		c.after = map[string]any{"waiting": strconv.FormatInt(waiting, 10), "event": contentOf(event)}
		return c, err
	})
	if err != nil {
		return uuid.Nil, printable.Errorf("apply %s to saga %s of %s: %w", e.Type, e.Saga, e.Key, err)
	}
	return id, nil
}
