package timeout_test

import (
	"context"
	"log"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/timeout"
)

type PaymentTimedOut struct{ OrderID string }

func (p PaymentTimedOut) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "order-timeouts", Type: "order.payment_timed_out", Subject: p.OrderID}
}

// An order that is not paid within 15 minutes is closed.
func Example() {
	var (
		pool   *pgxpool.Pool         // your database
		broker timeout.Broker        // from rocketmq.Open
		outbox rocketflow.Transactor // from outbox.New
		handle func(rocketflow.HandlerFunc)
	)
	timeouts, err := timeout.New(timeout.Config{Pool: pool, Broker: broker, Source: "orders"})
	if err != nil {
		log.Print(err) // pool and broker are missing here
		return
	}

	placeOrder := func(ctx context.Context, id string) error {
		return outbox.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
			if _, err := tx.Exec(ctx, "INSERT INTO orders (id, state) VALUES ($1, 'placed')", id); err != nil {
				return err
			}
			return timeouts.Arm(ctx, tx, id, "payment", time.Now().Add(15*time.Minute), PaymentTimedOut{OrderID: id})
		})
	}
	recordPayment := func(ctx context.Context, id string) error {
		return outbox.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
			// The aggregate first, then the timeout.
			if _, err := tx.Exec(ctx, "UPDATE orders SET state = 'paid' WHERE id = $1", id); err != nil {
				return err
			}
			_, err := timeouts.Disarm(ctx, tx, id, "payment")
			return err
		})
	}
	// Registered with a handlers.Router; what it does commits only if the order was not paid in the meantime.
	handle(timeouts.Fence(func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		_, err := tx.Exec(ctx, "UPDATE orders SET state = 'closed' WHERE id = $1", e.Subject)
		return err
	}))
	_, _ = placeOrder, recordPayment
}
