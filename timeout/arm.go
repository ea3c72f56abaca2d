package timeout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/stored"
	"github.com/rocketflow/rocketflow/internal/valid"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// Limits of what names a timeout, in bytes.
const (
	MaxKey  = 512
	MaxName = 255
)

// maxYear keeps instants within what Postgres and RFC 3339 can write.
const maxYear = 9999

// Arm arms the timeout (key, name) in tx: when at has come, event is delivered as an event of its topic, once, unless
// the timeout is disarmed or moved before. Arming an armed timeout moves it and replaces its event. An instant that has
// passed is due at once; one with nanoseconds is rounded up to the next microsecond.
//
// key is usually the aggregate's id, name what the timeout is for. A *rocketflow.FieldError says what can't be accepted;
// tx remains usable then.
//
// A handler may arm the timeout anew whose firing it handles, given the context that it got: that is how a timeout recurs.
// If the firing has been overtaken, that returns rocketflow.ErrStale, which the handler returns in turn.
//
// What is armed at each start of a program, a daily job say, needs [Scheduler.ArmIfAbsent]: Arm would move a timeout that
// is overdue because the program was down, and it would never fire.
func (s *Scheduler) Arm(ctx context.Context, tx rocketflow.Tx, key, name string, at time.Time, event rocketflow.Payload) error {
	own := firingIn(ctx, key, name)
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

// ArmIfAbsent arms the timeout as Arm does, unless it is armed. false: it is, and stays as it is, also if it is overdue.
// In the handler of the timeout's own firing that timeout counts as absent until the handler has armed it anew.
func (s *Scheduler) ArmIfAbsent(ctx context.Context, tx rocketflow.Tx, key, name string, at time.Time, event rocketflow.Payload) (armed bool, err error) {
	if own := firingIn(ctx, key, name); own != nil {
		if len(own.rearmed) > 0 {
			if err := tx.QueryRow(ctx, s.sql.Get("Armed"), key, name, own.rearmed).Scan(&armed); err != nil || armed {
				return false, wrapArm(key, name, err)
			}
		}
		err := s.Arm(ctx, tx, key, name, at, event)
		return err == nil, err
	}
	return s.arm(ctx, tx, "ArmIfAbsent", nil, key, name, at, event)
}

func wrapArm(key, name string, err error) error {
	if err == nil {
		return nil
	}
	return printable.Errorf("arm timeout %s of %s: %w", name, key, err)
}

// arm runs one of the statements that arm. false: it found nothing to change.
func (s *Scheduler) arm(ctx context.Context, tx rocketflow.Tx, query string, own *firing, key, name string, at time.Time, event rocketflow.Payload) (bool, error) {
	at, err := checked(key, name, at)
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
	headers, err := stored.Headers(e)
	if err != nil {
		return false, wrapArm(key, name, err)
	}
	args := []any{
		key, name, e.ID.String(), s.cfg.Grace.Seconds(), s.cfg.Horizon.Seconds(), at, e.Source, e.Topic, e.Type, e.Subject, e.ContentType,
		headers, stored.Body(e),
	}
	if own != nil {
		args = append(args, own.epochs())
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
	s.handOverAfter(tx, e, at)
	return true, nil
}

// Move gives an armed timeout another instant, in tx. false: it is not armed.
func (s *Scheduler) Move(ctx context.Context, tx rocketflow.Tx, key, name string, at time.Time) (bool, error) {
	at, err := checked(key, name, at)
	if err != nil {
		return false, fmt.Errorf("move timeout: %w", err)
	}
	epoch, err := uuid.NewV7()
	if err != nil {
		return false, printable.Errorf("move timeout %s of %s: draw epoch: %w", name, key, err)
	}
	var replaces []string // any
	own := firingIn(ctx, key, name)
	if own != nil {
		replaces = own.epochs()
	}
	e := rocketflow.Event{ID: epoch, TimeoutKey: key, TimeoutName: name}
	var headers []byte
	err = tx.QueryRow(ctx, s.sql.Get("Move"), key, name, epoch.String(), s.cfg.Grace.Seconds(), s.cfg.Horizon.Seconds(), at, replaces).
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
	s.handOverAfter(tx, e, at)
	return true, nil
}

// Disarm takes the timeout back in tx: once tx has committed it will not fire. false: it was not armed, because it fired
// or never was. If it is being fired just now, Disarm waits for the outcome. Touch the aggregate first, then disarm (see
// the package comment). In the handler of its own firing, Disarm changes nothing but what the handler armed anew, and
// returns true.
func (s *Scheduler) Disarm(ctx context.Context, tx pgx.Tx, key, name string) (bool, error) {
	if own := firingIn(ctx, key, name); own != nil {
		return true, s.disarmOwn(ctx, tx, own)
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
		tx.AfterCommit(func() { tell(s.cfg.Listener.Disarmed, i) })
	} else {
		tell(s.cfg.Listener.Disarmed, i)
	}
	return true, nil
}

// handOverAfter gives the timeout to the workers once tx has committed, if it is due within the horizon. e.Time is when
// it was armed, by Postgres' clock.
func (s *Scheduler) handOverAfter(tx rocketflow.Tx, e rocketflow.Event, at time.Time) {
	tx.AfterCommit(func() {
		tell(s.cfg.Listener.Armed, Info{Key: e.TimeoutKey, Name: e.TimeoutName, Epoch: e.ID, DueAt: at, Late: e.Time.Sub(at)})
		if at.Sub(e.Time) <= s.cfg.Horizon {
			s.offer(job{event: e, at: at})
		}
	})
}

func checked(key, name string, at time.Time) (time.Time, error) {
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
	return ceil(at, time.Microsecond), nil
}

// ceil rounds up, so that nothing is early.
func ceil(t time.Time, unit time.Duration) time.Time {
	if down := t.Truncate(unit); down.Before(t) {
		return down.Add(unit)
	}
	return t.Round(0) // without the monotonic reading
}

func isText(s string, most int) bool {
	return s != "" && len(s) <= most && printable.IsText(s)
}
