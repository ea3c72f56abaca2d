package timeout

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/fencing"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// Fence is the middleware that makes timeouts fire at most once, never early and never after they were disarmed. Every
// handler of timeouts needs it; events that are no timeouts pass. See the package comment for how. Fencing twice is as
// fencing once. A timeout that another service armed, whatever message says so, gives a *ForeignError.
func (s *Scheduler) Fence(next rocketflow.HandlerFunc) rocketflow.HandlerFunc {
	return func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		if e.TimeoutName == "" || firingOf(ctx, e) {
			return next(ctx, tx, e)
		}
		fencing.Pass(ctx)
		own, err := s.installation(ctx, tx)
		if err != nil {
			return err
		}
		if e.Database != own {
			return &ForeignError{Key: e.TimeoutKey, Name: e.TimeoutName, Database: e.Database, Own: own}
		}
		i := Info{Key: e.TimeoutKey, Name: e.TimeoutName, Epoch: e.ID, Topic: e.Topic, Type: e.Type}
		armed, err := s.look(ctx, tx, &i)
		switch {
		case err != nil:
			return err
		case !armed:
			tell(s.cfg.Listener.Stale, i)
			return nil
		case i.Late < 0:
			tell(s.cfg.Listener.TooEarly, i)
			return &rocketflow.RetryAfterError{After: -i.Late}
		}
		f := &firing{key: e.TimeoutKey, name: e.TimeoutName, epoch: e.ID}
		if err := next(context.WithValue(ctx, firingKey{}, f), tx, e); err != nil {
			return err
		}
		// Last, after the handler's own locks: see Lock order in the package comment.
		won, err := s.win(ctx, tx, f)
		if err != nil {
			return err
		}
		if !won {
			tell(s.cfg.Listener.Stale, i)
			return printable.Errorf("timeout %s of %s: %w", f.name, f.key, rocketflow.ErrStale)
		}
		tx.AfterCommit(func() { tell(s.cfg.Listener.Fired, i) })
		return nil
	}
}

// look fills in when the timeout is due. false: it isn't armed with this epoch.
func (s *Scheduler) look(ctx context.Context, tx pgx.Tx, i *Info) (bool, error) {
	var micros int64
	err := tx.QueryRow(ctx, s.sql.Get("Look"), i.Key, i.Name, i.Epoch.String()).Scan(&i.DueAt, &micros)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, printable.Errorf("look at timeout %s of %s: %w", i.Name, i.Key, err)
	}
	i.Late = time.Duration(micros) * time.Microsecond
	return true, nil
}

// win takes the row, or finds that the handler armed the timeout anew: only the one who would have won can do that.
func (s *Scheduler) win(ctx context.Context, tx pgx.Tx, f *firing) (bool, error) {
	tag, err := tx.Exec(ctx, s.sql.Get("Win"), f.key, f.name, f.epoch.String())
	won := tag.RowsAffected() == 1
	if err == nil && !won && len(f.rearmed) > 0 {
		err = tx.QueryRow(ctx, s.sql.Get("Armed"), f.key, f.name, f.rearmed).Scan(&won)
	}
	if err != nil {
		return false, printable.Errorf("fire timeout %s of %s: %w", f.name, f.key, err)
	}
	return won, nil
}

// disarmOwn makes the row again what the fence takes at the end, if the handler has armed it anew.
func (s *Scheduler) disarmOwn(ctx context.Context, tx pgx.Tx, f *firing) error {
	if len(f.rearmed) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, s.sql.Get("DisarmOwn"), f.key, f.name, f.epoch.String(), f.rearmed); err != nil {
		return printable.Errorf("disarm timeout %s of %s: %w", f.name, f.key, err)
	}
	return nil
}

// firing is the timeout whose event a handler handles. It is in the handler's context, so that the handler can arm or
// disarm that same timeout without making its own firing stale. What the row says decides all the same: a savepoint that
// the handler rolls back takes a new epoch with it.
type firing struct {
	key, name string
	epoch     uuid.UUID
	rearmed   []string // the epochs that the handler drew for it; savepoints decide which of them is in the row
}

// epochs are those that the handler may replace.
func (f *firing) epochs() []string { return append([]string{f.epoch.String()}, f.rearmed...) }

type firingKey struct{}

// firingIn returns the firing of (key, name) that ctx belongs to, or nil.
func firingIn(ctx context.Context, key, name string) *firing {
	if f, _ := ctx.Value(firingKey{}).(*firing); f != nil && f.key == key && f.name == name {
		return f
	}
	return nil
}

func firingOf(ctx context.Context, e rocketflow.Event) bool {
	f := firingIn(ctx, e.TimeoutKey, e.TimeoutName)
	return f != nil && f.epoch == e.ID
}
