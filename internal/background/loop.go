package background

import (
	"context"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/clock"
)

// Loop repeats work: at once, and again when the pause that it returned has passed on Clock, when Wake gets a value, or
// when a test moves the clock. A clock that was moved during the work ends the pause as well: what the work saw is past.
type Loop struct {
	Clock rocketflow.Clock
	Wake  <-chan struct{} // nil: nothing but time wakes the loop
}

// Run repeats work until ctx ends. work returns how long to pause; 0 or less: not at all.
func (l Loop) Run(ctx context.Context, work func(ctx context.Context) (pause time.Duration)) {
	for ctx.Err() == nil {
		moved := clock.Moved(l.Clock)
		if pause := work(ctx); pause > 0 {
			l.rest(ctx, moved, pause)
		}
	}
}

// rest returns when ctx ends, too.
func (l Loop) rest(ctx context.Context, moved <-chan struct{}, pause time.Duration) {
	passed, giveUp := l.Clock.After(pause)
	defer giveUp()
	select {
	case <-ctx.Done():
	case <-moved:
	case <-l.Wake:
	case <-passed:
	}
}

// Every is Run for work that always pauses as long.
func (l Loop) Every(ctx context.Context, pause time.Duration, work func(ctx context.Context)) {
	l.Run(ctx, func(ctx context.Context) time.Duration {
		work(ctx)
		return pause
	})
}

// Sleep waits until d has passed on c. false: ctx ended before.
func Sleep(ctx context.Context, c rocketflow.Clock, d time.Duration) bool {
	passed, giveUp := c.After(d)
	defer giveUp()
	select {
	case <-ctx.Done():
	case <-passed:
	}
	return ctx.Err() == nil
}
