package background

import (
	"context"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/clock"
)

// Loop repeats work: at once, and again when the pause that it returned has passed on Clock, when Wake receives a value, or
// when a test moves the clock. A clock that was moved during the work ends the pause as well, because the work may have read
// the old time.
type Loop struct {
	Clock rocketflow.Clock
	Wake  <-chan struct{} // ends a pause; nil: none
}

// Run repeats work until ctx ends. work returns the pause until the next call; 0 or less means none.
func (l Loop) Run(ctx context.Context, work func(ctx context.Context) (pause time.Duration)) {
	for ctx.Err() == nil {
		moved := clock.Moved(l.Clock)
		if pause := work(ctx); pause > 0 {
			l.pause(ctx, moved, pause)
		}
	}
}

// pause waits until the pause has passed, or one of the other channels or ctx ends it.
func (l Loop) pause(ctx context.Context, moved <-chan struct{}, pause time.Duration) {
	passed, stop := l.Clock.After(pause)
	defer stop()
	select {
	case <-ctx.Done():
	case <-moved:
	case <-l.Wake:
	case <-passed:
	}
}

// Every is Run with the same pause each time.
func (l Loop) Every(ctx context.Context, pause time.Duration, work func(ctx context.Context)) {
	l.Run(ctx, func(ctx context.Context) time.Duration {
		work(ctx)
		return pause
	})
}

// Sleep waits until d has passed on c. It returns false if ctx ends before.
func Sleep(ctx context.Context, c rocketflow.Clock, d time.Duration) bool {
	passed, stop := c.After(d)
	defer stop()
	select {
	case <-ctx.Done():
	case <-passed:
	}
	return ctx.Err() == nil
}
