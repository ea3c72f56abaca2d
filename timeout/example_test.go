package timeout_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/timeout"
)

type PaymentTimedOut struct{ OrderID string }

func (p PaymentTimedOut) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "order-timeouts", Type: "order.payment_timed_out", Subject: p.OrderID}
}

type ReportDue struct{ Day string }

func (p ReportDue) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "reports", Type: "report.due"}
}

// An order that is not paid within 15 minutes is closed.
func Example() {
	var (
		pool   *pgxpool.Pool         // of the service's database
		broker timeout.Broker        // from rocketmq.Open
		box    rocketflow.Transactor // from outbox.New
		router *handlers.Router      // from handlers.New
	)
	timeouts, err := timeout.New(timeout.Config{Pool: pool, Broker: broker, Source: "orders"})
	if err != nil {
		log.Print(err) // pool and broker are missing here
		return
	}
	// The fence makes a timeout fire once, not early, and not after it was disarmed.
	router.Use(timeouts.Fence)
	handlers.On(router, "orders", func(ctx context.Context, tx rocketflow.Tx, p PaymentTimedOut) error {
		_, err := tx.Exec(ctx, "UPDATE orders SET state = 'closed' WHERE id = $1", p.OrderID)
		return err
	})
	if err := timeouts.Start(context.Background()); err != nil {
		log.Print(err)
		return
	}

	placeOrder := func(ctx context.Context, id string) error {
		return box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
			if _, err := tx.Exec(ctx, "INSERT INTO orders (id, state) VALUES ($1, 'placed')", id); err != nil {
				return err
			}
			return timeouts.Arm(ctx, tx, id, "payment", time.Now().Add(15*time.Minute), PaymentTimedOut{OrderID: id})
		})
	}
	recordPayment := func(ctx context.Context, id string) error {
		return box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
			// The aggregate first, then the timeout: see Lock order.
			if _, err := tx.Exec(ctx, "UPDATE orders SET state = 'paid' WHERE id = $1", id); err != nil {
				return err
			}
			_, err := timeouts.Disarm(ctx, tx, id, "payment")
			return err
		})
	}
	_, _ = placeOrder, recordPayment
}

// New names the field that is missing.
func ExampleNew() {
	_, err := timeout.New(timeout.Config{Source: "orders"})
	var field *rocketflow.FieldError
	if errors.As(err, &field) {
		fmt.Println(field.Field, "is", field.Reason)
	}
	// Output: timeout.Config.Pool is missing
}

// A customer gets another hour to pay.
func ExampleScheduler_Move() {
	var (
		timeouts *timeout.Scheduler
		box      rocketflow.Transactor
	)
	_ = func(ctx context.Context, id string) error {
		return box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
			armed, err := timeouts.Move(ctx, tx, id, "payment", time.Now().Add(time.Hour))
			if err == nil && !armed {
				return errors.New("the order was paid or closed in the meantime")
			}
			return err
		})
	}
}

// A daily job: the program arms the first one at each start, and the job arms the next one.
func ExampleScheduler_ArmIfAbsent() {
	var (
		timeouts *timeout.Scheduler
		box      rocketflow.Transactor
		router   *handlers.Router
	)
	armNext := func(ctx context.Context, tx rocketflow.Tx) error {
		tomorrow := time.Now().UTC().Truncate(24 * time.Hour).Add(24 * time.Hour)
		_, err := timeouts.ArmIfAbsent(ctx, tx, "reports", "daily", tomorrow, ReportDue{Day: tomorrow.Format(time.DateOnly)})
		return err
	}
	_ = func(ctx context.Context) error { // at the start of the program
		return box.Within(ctx, armNext)
	}
	_ = func() {
		handlers.On(router, "reports", func(ctx context.Context, tx rocketflow.Tx, p ReportDue) error {
			if _, err := tx.Exec(ctx, "INSERT INTO report (day) VALUES ($1)", p.Day); err != nil {
				return err
			}
			return armNext(ctx, tx)
		})
	}
}

// Two listeners observe the same scheduler.
func ExampleTee() {
	count := &timeout.Listener{Fired: func(timeout.Info) { fmt.Println("one more has fired") }}
	log := &timeout.Listener{Fired: func(i timeout.Info) { fmt.Printf("%s of %s fired %v late\n", i.Name, i.Key, i.Late) }}
	both := timeout.Tee(count, log) // for timeout.Config.Listener

	both.Fired(timeout.Info{Key: "o-1", Name: "payment", Late: 3 * time.Millisecond})
	// Output:
	// one more has fired
	// payment of o-1 fired 3ms late
}
