package rocketflowfx_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/fx"
	"go.uber.org/fx/fxtest"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/timeout"
)

// All parts use Config.Clock. In each round a timeout fires, its handler publishes, and the handler of that event fails and is
// retried. All of it waits for that clock alone; the broker's clock stands still, so the sweep sends what is late there.
func TestAllPartsUseOneClock(t *testing.T) {
	t.Parallel()
	pool, schema, clock := testdb.Clocked(t)
	config := shopIn(t, schema)
	config.Clock = clock
	config.Handlers.Retry = handlers.RetryPolicy{Attempts: 3, Base: 10 * time.Minute, Max: 10 * time.Minute, Jitter: -1}
	config.Timeout.SweepGrace, config.Timeout.SweepInterval = time.Second, time.Minute
	parked, done := make(chan struct{}, 10), make(chan struct{}, 10)
	config.Handlers.Listener = &handlers.Listener{Parked: func(handlers.ParkedInfo) { parked <- struct{}{} }}
	var transactor rocketflow.Transactor
	var timer *timeout.Scheduler
	app := fxtest.New(t,
		rocketflowfx.Module,
		fx.Supply(pool, config),
		fx.Invoke(func(router *handlers.Router) {
			handlers.On(router, "shop", func(ctx context.Context, tx rocketflow.Tx, o Overdue) error {
				return tx.Publish(ctx, Shipped(o))
			})
			handlers.On(router, "shop", func(ctx context.Context, tx rocketflow.Tx, _ Shipped) error {
				if handlers.Attempt(ctx) == 1 {
					return errors.New("not at the first attempt")
				}
				tx.AfterCommit(func() { done <- struct{}{} })
				return nil
			})
		}),
		fx.Populate(&transactor, &timer),
	)
	app.RequireStart()
	defer app.RequireStop()
	for _, wait := range []time.Duration{30 * time.Minute, 3 * 24 * time.Hour, 10 * 24 * time.Hour, 30 * time.Minute} {
		err := transactor.Within(t.Context(), func(ctx context.Context, tx rocketflow.Tx) error {
			return timer.Arm(ctx, tx, "p-1", "overdue", clock.Now().Add(wait), Overdue{"p-1"})
		})
		if err != nil {
			t.Fatal(err)
		}
		clock.FastForward(wait + 2*time.Second)
		// Should the hand-over be written down only now, the sweep has another look after the grace.
		for fired, tries := false, 0; !fired; tries++ {
			select {
			case <-parked:
				fired = true
			case <-time.After(500 * time.Millisecond):
				if tries == 60 {
					t.Fatal("the timeout did not fire")
				}
				clock.FastForward(config.Timeout.SweepInterval)
			}
		}
		clock.FastForward(10 * time.Minute)
		await(t, done, "the event was not tried again")
	}
}
