package timeout

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/fencing"
	"github.com/rocketflow/rocketflow/internal/listen"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// Fence returns a handler that calls next for the event of a timeout only if the timeout is armed and due, and that fires
// the timeout in the same transaction. So a timeout fires at most once, never early, and never after it was disarmed. The
// package comment describes the steps. Events that belong to no timeout go to next unchanged.
//
// Register it as the middleware of every router that gets events of timeouts, before any other middleware:
// router.Use(timeouts.Fence). A router of package handlers makes the event of a timeout a dead letter if no fence stands
// before its handler. Two fences, one before the other, have the effect of one.
//
// The handler returns a *ForeignError for the event of a timeout that this service didn't arm.
func (s *Scheduler) Fence(next rocketflow.HandlerFunc) rocketflow.HandlerFunc {
	return func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		if e.TimeoutName == "" || isFiring(ctx, e) {
			return next(ctx, tx, e)
		}
		fencing.Pass(ctx)
		own, err := s.databaseID(ctx, tx)
		if err != nil {
			return err
		}
		if e.Database != own {
			return &ForeignError{Key: e.TimeoutKey, Name: e.TimeoutName, Database: e.Database, OwnDatabase: own}
		}
		i := Info{Key: e.TimeoutKey, Name: e.TimeoutName, Epoch: e.ID, Topic: e.Topic, Type: e.Type}
		armed, err := s.readDue(ctx, tx, &i)
		switch {
		case err != nil:
			return err
		case !armed:
			listen.Notify(s.cfg.Listener.Stale, i)
			return nil
		case i.Late < 0:
			listen.Notify(s.cfg.Listener.TooEarly, i)
			return &rocketflow.RetryAfterError{After: -i.Late}
		}
		f := &firing{key: e.TimeoutKey, name: e.TimeoutName, epoch: e.ID}
		if err := next(context.WithValue(ctx, firingKey{}, f), tx, e); err != nil {
			return err
		}
		// Last, after the handler's own locks: see Lock order in the package comment.
		fired, err := s.fire(ctx, tx, f)
		if err != nil {
			return err
		}
		if !fired {
			listen.Notify(s.cfg.Listener.Stale, i)
			return printable.Errorf("timeout %s of %s: %w", f.name, f.key, rocketflow.ErrStale)
		}
		tx.AfterCommit(func() { listen.Notify(s.cfg.Listener.Fired, i) })
		return nil
	}
}

// readDue reads, without a lock, when the timeout with i's key, name and epoch is due, and sets i.DueAt and i.Late. It
// returns false if no timeout is armed with this epoch.
func (s *Scheduler) readDue(ctx context.Context, tx pgx.Tx, i *Info) (bool, error) {
	var micros int64
	err := tx.QueryRow(ctx, s.sql.Get("ReadDue"), i.Key, i.Name, i.Epoch.String()).Scan(&i.DueAt, &micros)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, printable.Errorf("read timeout %s of %s: %w", i.Name, i.Key, err)
	}
	i.Late = time.Duration(micros) * time.Microsecond
	return true, nil
}

// fire deletes the row of the timeout if it still carries the epoch of f, or accepts that the handler armed the timeout
// again: only a handler whose own epoch was in the row could do that. It returns false if the firing is stale.
func (s *Scheduler) fire(ctx context.Context, tx pgx.Tx, f *firing) (bool, error) {
	tag, err := tx.Exec(ctx, s.sql.Get("Fire"), f.key, f.name, f.epoch.String())
	fired := tag.RowsAffected() == 1
	if err == nil && !fired && len(f.rearmed) > 0 {
		err = tx.QueryRow(ctx, s.sql.Get("IsArmed"), f.key, f.name, f.rearmed).Scan(&fired)
	}
	if err != nil {
		return false, printable.Errorf("fire timeout %s of %s: %w", f.name, f.key, err)
	}
	return fired, nil
}
