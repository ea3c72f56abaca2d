package timeout

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/fencing"
	"github.com/rocketflow/rocketflow/internal/handling"
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
		f := &firing{key: e.TimeoutKey, name: e.TimeoutName, epoch: e.ID}
		if c := handling.From(ctx); c != nil {
			f.consumer = c.Consumer
		}
		armed, err := s.readDue(ctx, tx, &i, f)
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
		if err := next(context.WithValue(ctx, firingKey{}, f), tx, e); err != nil {
			return err
		}
		// Last, after the handler's own locks: see Lock order in the package comment.
		fired, err := s.fire(ctx, tx, f, e)
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

// readDue reads, without a lock, when the timeout with i's key, name and epoch was armed and is due, and sets i.DueAt, i.Late and
// the times of f. It returns false if no timeout is armed with this epoch.
func (s *Scheduler) readDue(ctx context.Context, tx pgx.Tx, i *Info, f *firing) (bool, error) {
	var micros int64
	err := tx.QueryRow(ctx, s.sql.Get("ReadDue"), i.Key, i.Name, i.Epoch.String()).Scan(&f.armedAt, &i.DueAt, &micros)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, printable.Errorf("read timeout %s of %s: %w", i.Name, i.Key, err)
	}
	i.Late = time.Duration(micros) * time.Microsecond
	f.dueAt = i.DueAt
	return true, nil
}

// fire deletes the row of the timeout if it still carries the epoch of f, or accepts that the handler of e armed the timeout
// again: only a handler whose own epoch was in the row could do that. Both write to the history that the timeout has fired. It
// returns false if the firing is stale.
func (s *Scheduler) fire(ctx context.Context, tx pgx.Tx, f *firing, e rocketflow.Event) (bool, error) {
	args := []any{f.key, f.name, f.epoch.String(), f.armedAt, f.dueAt, f.consumer}
	tag, err := tx.Exec(ctx, s.sql.Get("Fire"), args...)
	if err == nil && tag.RowsAffected() == 0 && len(f.rearmed) > 0 {
		tag, err = tx.Exec(ctx, s.sql.Get("FireRearmed"), append(args, f.rearmed, e.Topic, e.Type, e.Subject)...)
	}
	if err != nil {
		return false, printable.Errorf("fire timeout %s of %s: %w", f.name, f.key, err)
	}
	return tag.RowsAffected() == 1, nil
}
