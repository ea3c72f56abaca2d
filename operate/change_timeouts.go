package operate

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/valid"
)

// ErrUnknownTimeout means that no such timeout is armed: it has fired, was disarmed or moved, or never was armed.
var ErrUnknownTimeout = errors.New("no such timeout is armed")

// maxTimeoutYear bounds due times to what Postgres and RFC 3339 can represent.
const maxTimeoutYear = 9999

// TimeoutRef identifies an armed timeout.
type TimeoutRef struct {
	Key  string `json:"key"`  // required. That of a saga's deadline is the name and key of the saga: order/4711
	Name string `json:"name"` // required
	// EventID is the id of the event that it fires with, as in Timeout. If it is set, a timeout that was armed again or moved since then
	// is not changed. Optional.
	EventID uuid.UUID `json:"event_id,omitzero"`
}

func (r TimeoutRef) check() error {
	switch "" {
	case r.Key:
		return valid.Field("operate.TimeoutRef.Key", "missing")
	case r.Name:
		return valid.Field("operate.TimeoutRef.Name", "missing")
	}
	return nil
}

// timeoutState is the state of a timeout in the audit.
type timeoutState struct {
	EventID uuid.UUID `json:"event_id"`
	DueAt   time.Time `json:"due_at"`
	Type    string    `json:"type"`
	Topic   string    `json:"topic"`
	Subject string    `json:"subject,omitempty"`
	Sends   int       `json:"sends,omitempty"`
}

// movedTimeout is the state of a timeout after it was moved or fired.
type movedTimeout struct {
	EventID uuid.UUID `json:"event_id"`
	DueAt   time.Time `json:"due_at"`
}

// FireTimeout makes an armed timeout due now: a process of the service sends its event within about a second, and it fires as at any
// time, once. The error matches ErrUnknownTimeout if it isn't armed.
//
// FireTimeout, MoveTimeout and DisarmTimeout work beside running services: a handler of the timeout's event that has not committed
// finds its firing stale, and is undone; one that has committed has fired the timeout, which is unknown then. They wait for a
// transaction that changes the timeout at this moment. FireTimeout and MoveTimeout give it a new EventID.
func (o *Operator) FireTimeout(ctx context.Context, r TimeoutRef) error {
	return o.moveTimeout(ctx, ActionFireTimeout, r, nil)
}

// MoveTimeout changes when an armed timeout fires. A time in the past is due at once. A time with nanoseconds is rounded up to the next
// microsecond. The error matches ErrUnknownTimeout if it isn't armed. See FireTimeout.
func (o *Operator) MoveTimeout(ctx context.Context, r TimeoutRef, at time.Time) error {
	if at.IsZero() || at.Year() < 1 || at.Year() > maxTimeoutYear {
		return valid.Fieldf("at", "%v: want a time of the years 1 to %d", at, maxTimeoutYear)
	}
	if down := at.Truncate(time.Microsecond); down.Before(at) {
		at = down.Add(time.Microsecond)
	}
	return o.moveTimeout(ctx, ActionMoveTimeout, r, &at)
}

// moveTimeout moves a timeout to a time; nil: now. Each sweep takes it, and hands it over or sends its event.
func (o *Operator) moveTimeout(ctx context.Context, action Action, r TimeoutRef, at *time.Time) error {
	epoch, err := uuid.NewV7()
	if err != nil {
		return printable.Errorf("%s: draw epoch: %w", action, err)
	}
	return o.changeTimeout(ctx, action, r, func(ctx context.Context, tx pgx.Tx) (before timeoutState, after *movedTimeout, err error) {
		var due time.Time
		err = tx.QueryRow(ctx, o.sql.Get("MoveTimeout"), r.Key, r.Name, idText(r.EventID), epoch.String(), at).
			Scan(&before.EventID, &before.DueAt, &before.Type, &before.Topic, &before.Subject, &before.Sends, &due)
		return before, &movedTimeout{epoch, due}, err
	})
}

// DisarmTimeout disarms a timeout: it never fires. The error matches ErrUnknownTimeout if it isn't armed. See FireTimeout. A saga whose
// deadline is disarmed stays in its state until an event moves it.
func (o *Operator) DisarmTimeout(ctx context.Context, r TimeoutRef) error {
	return o.changeTimeout(ctx, ActionDisarmTimeout, r, func(ctx context.Context, tx pgx.Tx) (before timeoutState, after *movedTimeout, err error) {
		err = tx.QueryRow(ctx, o.sql.Get("DisarmTimeout"), r.Key, r.Name, idText(r.EventID)).
			Scan(&before.EventID, &before.DueAt, &before.Type, &before.Topic, &before.Subject, &before.Sends)
		return before, nil, err
	})
}

func (o *Operator) changeTimeout(ctx context.Context, action Action, r TimeoutRef, change func(context.Context, pgx.Tx) (before timeoutState, after *movedTimeout, err error)) error {
	if err := r.check(); err != nil {
		return err
	}
	op, err := o.operation(ctx, action, r)
	if err != nil {
		return err
	}
	err = op.inTx(ctx, func(tx pgx.Tx) (c changed, err error) {
		before, after, err := change(ctx, tx)
		if errors.Is(err, pgx.ErrNoRows) {
			err = ErrUnknownTimeout
		}
		c.add(r.Key+"/"+r.Name, r.Key, before.EventID.String())
		c.before = before
		if after != nil {
			c.after = after
			c.names = append(c.names, after.EventID.String())
		}
		return c, err
	})
	if err != nil {
		return printable.Errorf("%s %s of %s: %w", action, r.Name, r.Key, err)
	}
	return nil
}
