package timeout

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// firing is the timeout whose event a handler handles. The fence puts it into the handler's context, so that the handler
// can arm, move or disarm this timeout without making its own firing stale.
type firing struct {
	consumer       string // whose handler it is; empty: unknown
	key, name      string
	epoch          uuid.UUID
	armedAt, dueAt time.Time
	// rearmed holds the epochs that the handler drew for the timeout. The row decides which of them counts: a savepoint that
	// the handler rolls back takes its epoch with it.
	rearmed []string
}

// epochs returns the epochs that the handler may replace: that of its event and those that it drew.
func (f *firing) epochs() []string { return append([]string{f.epoch.String()}, f.rearmed...) }

type firingKey struct{}

// firingOf returns the firing of the timeout (key, name) that ctx belongs to, or nil.
func firingOf(ctx context.Context, key, name string) *firing {
	if f, _ := ctx.Value(firingKey{}).(*firing); f != nil && f.key == key && f.name == name {
		return f
	}
	return nil
}

// isFiring reports whether ctx belongs to the firing of e, so that a fence has already admitted it.
func isFiring(ctx context.Context, e rocketflow.Event) bool {
	f := firingOf(ctx, e.TimeoutKey, e.TimeoutName)
	return f != nil && f.epoch == e.ID
}

// disarmRearmed takes back what the handler armed again: the row carries the epoch of f again, and the fence deletes it
// when the handler has returned.
func (s *Scheduler) disarmRearmed(ctx context.Context, tx pgx.Tx, f *firing) error {
	if len(f.rearmed) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, s.sql.Get("DisarmRearmed"), f.key, f.name, f.epoch.String(), f.rearmed); err != nil {
		return printable.Errorf("disarm timeout %s of %s: %w", f.name, f.key, err)
	}
	return nil
}
