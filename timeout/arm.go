package timeout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/listen"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/stored"
	"github.com/rocketflow/rocketflow/internal/valid"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// Limits of a timeout's key and name, in bytes.
const (
	MaxKey  = 512
	MaxName = 255
)

// maxYear bounds due times to what Postgres and RFC 3339 can represent.
const maxYear = 9999

// Arm arms the timeout (key, name) in tx: once tx has committed and at has come, event is delivered as an event of its
// topic, unless the timeout is disarmed or moved before. key is usually the id of the aggregate, name the purpose of the
// timeout. A time in the past is due at once; a time with nanoseconds is rounded up to the next microsecond. Arming an armed
// timeout moves it and replaces its event.
//
// Arm returns a *rocketflow.FieldError for a key, name, time or event that it can't accept; tx remains usable then.
//
// The handler of a timeout's event may arm the same timeout again, with the context that it got: so a timeout recurs. If the
// firing is stale by then, Arm returns rocketflow.ErrStale, which the handler must return.
//
// A program that arms a timeout at each start, such as a daily job, must call [Scheduler.ArmIfAbsent]: Arm would move a
// timeout that came due while the program was down, and that due time would be lost.
func (s *Scheduler) Arm(ctx context.Context, tx rocketflow.Tx, key, name string, at time.Time, event rocketflow.Payload) error {
	own := firingOf(ctx, key, name)
	query := "Arm"
	if own != nil {
		query = "Rearm"
	}
	armed, err := s.arm(ctx, tx, query, own, key, name, at, event)
	if err == nil && !armed {
		return printable.Errorf("arm timeout %s of %s again: %w", name, key, rocketflow.ErrStale)
	}
	return err
}

// ArmIfAbsent arms the timeout as Arm does, unless it is armed already. It returns false if it was armed: the timeout then
// stays as it is, also if it is overdue. For the handler of the timeout's own event the timeout counts as absent until the
// handler has armed it again.
func (s *Scheduler) ArmIfAbsent(ctx context.Context, tx rocketflow.Tx, key, name string, at time.Time, event rocketflow.Payload) (armed bool, err error) {
	if own := firingOf(ctx, key, name); own != nil {
		if len(own.rearmed) > 0 {
			if err := tx.QueryRow(ctx, s.sql.Get("IsArmed"), key, name, own.rearmed).Scan(&armed); err != nil || armed {
				return false, wrapArm(key, name, err)
			}
		}
		err := s.Arm(ctx, tx, key, name, at, event)
		return err == nil, err
	}
	return s.arm(ctx, tx, "ArmIfAbsent", nil, key, name, at, event)
}

// wrapArm adds the timeout to an error of Arm; nil stays nil.
func wrapArm(key, name string, err error) error {
	if err == nil {
		return nil
	}
	return printable.Errorf("arm timeout %s of %s: %w", name, key, err)
}

// arm runs the statement Arm, Rearm or ArmIfAbsent. It returns false if the statement found nothing to change.
func (s *Scheduler) arm(ctx context.Context, tx rocketflow.Tx, query string, own *firing, key, name string, at time.Time, event rocketflow.Payload) (bool, error) {
	at, err := validated(key, name, at)
	if err != nil {
		return false, fmt.Errorf("arm timeout: %w", err)
	}
	if event == nil {
		return false, wrapArm(key, name, valid.Field("event", "missing"))
	}
	e, err := wire.NewEvent(event)
	if err != nil {
		return false, wrapArm(key, name, err)
	}
	if len(e.Body) > s.cfg.MaxBody {
		return false, wrapArm(key, name, valid.Fieldf("body", "%d bytes, at most %d are allowed", len(e.Body), s.cfg.MaxBody))
	}
	e.Source, e.TimeoutKey, e.TimeoutName = s.cfg.Source, key, name
	if s.cfg.OnArm != nil {
		s.cfg.OnArm(ctx, &e)
		if err := wire.Validate(e); err != nil {
			return false, wrapArm(key, name, err)
		}
	}
	headers, err := stored.Headers(e)
	if err != nil {
		return false, wrapArm(key, name, err)
	}
	horizon := s.horizonOf(e.Topic)
	args := []any{
		key, name, e.ID.String(), s.cfg.SweepGrace.Seconds(), horizon.Seconds(), at, e.Source, e.Topic, e.Type, e.Subject, e.ContentType,
		headers, stored.Body(e),
	}
	if own != nil {
		args = append(args, own.epochs(), own.epoch.String())
	}
	err = tx.QueryRow(ctx, s.sql.Get(query), args...).Scan(&e.Time)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, wrapArm(key, name, err)
	}
	if own != nil {
		own.rearmed = append(own.rearmed, e.ID.String())
	}
	s.handOverAfterCommit(tx, e, at, horizon)
	return true, nil
}

// Move changes the due time of an armed timeout in tx. It returns false if the timeout is not armed. It returns a
// *rocketflow.FieldError as Arm does.
func (s *Scheduler) Move(ctx context.Context, tx rocketflow.Tx, key, name string, at time.Time) (bool, error) {
	at, err := validated(key, name, at)
	if err != nil {
		return false, fmt.Errorf("move timeout: %w", err)
	}
	epoch, err := uuid.NewV7()
	if err != nil {
		return false, printable.Errorf("move timeout %s of %s: draw epoch: %w", name, key, err)
	}
	var replaces []string // nil: any epoch
	var firing *string
	own := firingOf(ctx, key, name)
	if own != nil {
		id := own.epoch.String()
		replaces, firing = own.epochs(), &id
	}
	e := rocketflow.Event{ID: epoch, TimeoutKey: key, TimeoutName: name}
	var headers []byte
	horizon := s.horizon()
	err = tx.QueryRow(ctx, s.sql.Get("Move"), key, name, epoch.String(), s.cfg.SweepGrace.Seconds(), horizon.Seconds(), at, replaces, firing).
		Scan(&e.Time, &e.Source, &e.Topic, &e.Type, &e.Subject, &e.ContentType, &headers, &e.Body)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err == nil {
		err = stored.SetHeaders(&e, headers)
	}
	if err != nil {
		return false, printable.Errorf("move timeout %s of %s: %w", name, key, err)
	}
	if own != nil {
		own.rearmed = append(own.rearmed, epoch.String())
	}
	s.handOverAfterCommit(tx, e, at, horizon)
	return true, nil
}

// Disarm disarms the timeout in tx: it doesn't fire once tx has committed. It returns false if the timeout was not armed:
// it has fired, was disarmed, or never was armed. While another transaction fires the timeout, Disarm waits for its
// outcome. Lock the aggregate before you disarm (see Lock order in the package comment).
//
// In the handler of the timeout's own event, Disarm takes back what the handler armed again, if anything, and returns true.
func (s *Scheduler) Disarm(ctx context.Context, tx pgx.Tx, key, name string) (bool, error) {
	if own := firingOf(ctx, key, name); own != nil {
		return true, s.disarmRearmed(ctx, tx, own)
	}
	i := Info{Key: key, Name: name}
	err := tx.QueryRow(ctx, s.sql.Get("Disarm"), key, name).Scan(&i.Epoch, &i.DueAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, printable.Errorf("disarm timeout %s of %s: %w", name, key, err)
	}
	if tx, ok := tx.(rocketflow.Tx); ok {
		tx.AfterCommit(func() { listen.Notify(s.cfg.Listener.Disarmed, i) })
	} else {
		listen.Notify(s.cfg.Listener.Disarmed, i)
	}
	return true, nil
}

// handOverAfterCommit gives the timeout to the workers once tx has committed, if it is due within the horizon. Otherwise the
// sweep hands it over, or sends its event. e.Time is when it was armed, by the clock of Postgres; horizon is what next_sweep_at
// of the row was set by.
func (s *Scheduler) handOverAfterCommit(tx rocketflow.Tx, e rocketflow.Event, at time.Time, horizon time.Duration) {
	h := handOver{event: e, dueAt: at, dueHere: s.cfg.Clock.Now().Add(at.Sub(e.Time))}
	tx.AfterCommit(func() {
		listen.Notify(s.cfg.Listener.Armed, Info{Key: e.TimeoutKey, Name: e.TimeoutName, Epoch: e.ID, DueAt: at, Late: e.Time.Sub(at)})
		switch {
		case at.Sub(e.Time) <= horizon:
			s.enqueue(h)
		case horizon == 0:
			s.sweepAt(h.dueHere)
		}
	})
}

// validated returns at as it is stored, or a *rocketflow.FieldError.
func validated(key, name string, at time.Time) (time.Time, error) {
	switch {
	case !isText(key, MaxKey):
		return at, valid.Fieldf("key", "%s: want 1 to %d bytes without control characters", printable.Quote(key, printable.Name), MaxKey)
	case !isText(name, MaxName):
		return at, valid.Fieldf("name", "%s: want 1 to %d bytes without control characters", printable.Quote(name, printable.Name), MaxName)
	case at.IsZero():
		return at, valid.Field("at", "missing")
	case at.Year() < 1 || at.Year() > maxYear:
		return at, valid.Fieldf("at", "year %d: want 1 to %d", at.Year(), maxYear)
	}
	return roundUp(at, time.Microsecond), nil
}

// roundUp rounds t up to a multiple of unit, so that no timeout fires early. It drops the monotonic clock reading.
func roundUp(t time.Time, unit time.Duration) time.Time {
	if down := t.Truncate(unit); down.Before(t) {
		return down.Add(unit)
	}
	return t.Round(0)
}

// isText reports whether s can be the key or name of a timeout.
func isText(s string, maxBytes int) bool {
	return s != "" && len(s) <= maxBytes && printable.IsText(s)
}
