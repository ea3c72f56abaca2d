package rocketflowtest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/timeout"
)

// exampleT stands for the *testing.T of a test.
type exampleT struct {
	testing.TB
	cleanups []func()
}

func (t *exampleT) Helper()                   {}
func (t *exampleT) Cleanup(fn func())         { t.cleanups = append(t.cleanups, fn) }
func (t *exampleT) Error(args ...any)         { fmt.Println(args...) }
func (t *exampleT) Errorf(f string, a ...any) { fmt.Printf(f+"\n", a...) }
func (t *exampleT) Fatal(args ...any)         { panic(fmt.Sprint(args...)) }
func (t *exampleT) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

// end ends the test.
func (t *exampleT) end() {
	for len(t.cleanups) > 0 {
		last := len(t.cleanups) - 1
		cleanup := t.cleanups[last]
		t.cleanups = t.cleanups[:last]
		cleanup()
	}
}

// An order is closed when half an hour has passed without a payment. The test doesn't wait for it.
func Example() {
	t := new(exampleT) // the *testing.T of your test
	defer t.end()

	env := rocketflowtest.New(t)
	orders := env.Start(
		rocketflowfx.Config{Service: "orders", Topics: topics},
		fx.Invoke(func(router *handlers.Router, timeouts *timeout.Scheduler) {
			handlers.On(router, "orders", func(ctx context.Context, tx rocketflow.Tx, p placed) error {
				return timeouts.Arm(ctx, tx, p.ID, "unpaid", env.Now().Add(30*time.Minute), overdue(p))
			})
			handlers.On(router, "orders", func(ctx context.Context, tx rocketflow.Tx, o overdue) error {
				return tx.Publish(ctx, closed(o))
			})
		}),
	)
	orders.Publish(placed{ID: "o-1"})
	env.FastForward(29 * time.Minute)
	fmt.Println("after 29 minutes:", rocketflowtest.Events[closed](env))
	env.FastForward(2 * time.Minute)
	fmt.Println("after 31 minutes:", rocketflowtest.Events[closed](env))
	// Output:
	// after 29 minutes: []
	// after 31 minutes: [{o-1}]
}

// The broker's response to the first send is lost, so the event is sent again. The handler's effect happens once.
func ExampleEnv_Broker() {
	t := new(exampleT) // the *testing.T of your test
	defer t.end()

	env := rocketflowtest.New(t)
	handled := 0
	orders := env.Start(
		rocketflowfx.Config{Service: "orders", Topics: topics},
		fx.Invoke(func(router *handlers.Router) {
			handlers.On(router, "orders", func(context.Context, rocketflow.Tx, placed) error { handled++; return nil })
		}),
	)
	remove := env.Broker().Control(rocketmqtest.Once("END_TRANSACTION", rocketmqtest.DropResponse()))
	orders.Publish(placed{ID: "o-1"})
	remove()
	env.FastForward(time.Minute)
	fmt.Println("handled:", handled)
	// Output:
	// handled: 1
}

// A deployment stops the service for a moment. It handles afterwards what was published meanwhile.
func ExampleService_Stop() {
	t := new(exampleT) // the *testing.T of your test
	defer t.end()

	env := rocketflowtest.New(t)
	shop := env.Start(rocketflowfx.Config{Service: "shop", Topics: topics})
	store := env.Start(
		rocketflowfx.Config{Service: "store", Topics: topics},
		fx.Invoke(func(router *handlers.Router) {
			handlers.On(router, "store", func(_ context.Context, _ rocketflow.Tx, p placed) error {
				fmt.Println("packs", p.ID)
				return nil
			})
		}),
	)
	store.Stop()
	shop.Publish(placed{ID: "o-1"})
	env.Settle() // a stopped service is not waited for
	fmt.Println("starts again")
	store.Start()
	env.Settle()
	// Output:
	// starts again
	// packs o-1
}

// A handler that always fails makes its event a dead letter after its last attempt.
func ExampleService_DeadLetters() {
	t := new(exampleT) // the *testing.T of your test
	defer t.end()

	env := rocketflowtest.New(t)
	orders := env.Start(
		rocketflowfx.Config{Service: "orders", Topics: topics},
		fx.Invoke(func(router *handlers.Router) {
			handlers.On(router, "orders", func(context.Context, rocketflow.Tx, placed) error {
				return errors.New("no such product")
			})
		}),
	)
	orders.Publish(placed{ID: "o-1"})
	env.Settle()
	fmt.Println("parked:", len(orders.Parked()), "dead letters:", len(orders.DeadLetters()))
	env.FastForward(100 * 24 * time.Hour)
	fmt.Println("parked:", len(orders.Parked()), "dead letters:", len(orders.DeadLetters()))
	// Output:
	// parked: 1 dead letters: 0
	// parked: 0 dead letters: 1
}

// TrySettle says what is left to do where Settle would fail the test.
func ExampleEnv_TrySettle() {
	t := new(exampleT) // the *testing.T of your test
	defer t.end()

	env := rocketflowtest.New(t)
	orders := env.Start(
		rocketflowfx.Config{Service: "orders", Topics: topics},
		fx.Invoke(func(router *handlers.Router) {
			handlers.On(router, "orders", func(context.Context, rocketflow.Tx, placed) error { return nil })
		}),
	)
	env.Broker().Pause()
	orders.Publish(placed{ID: "o-1"}) // commits without the broker
	for _, work := range env.TrySettle(100 * time.Millisecond) {
		fmt.Println(work)
	}
	env.Broker().Resume()
	env.Settle()
	fmt.Println("settled")
	// Output:
	// orders: 1 owed events that the broker hasn't acknowledged
	// settled
}
