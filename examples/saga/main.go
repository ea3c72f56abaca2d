// Command saga shows a workflow with states, events and a deadline: an order that is confirmed when it is paid, and closed
// if it isn't paid in time. It runs two orders, prints what became of them, and ends.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/saga"
)

// Order is the data of the saga.
type Order struct {
	Name  string    `json:"name"`
	PayBy time.Time `json:"pay_by"`
}

// PaymentReceived moves the saga whose key is its subject.
type PaymentReceived struct {
	OrderID string `json:"order_id"`
}

// EventMeta implements rocketflow.Payload.
func (p PaymentReceived) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "payments", Type: "payment.received", Subject: p.OrderID}
}

func main() {
	config, err := app.ConfigFromEnv("orders", os.Getenv)
	check(err)
	config.Migrate, config.CreateTopics = true, true
	config.Topics = []broker.Topic{{Name: "payments"}}
	config.Saga.TimeoutTopic = "order-deadlines"
	a, err := app.New(config)
	check(err)

	ended := make(chan string, 2)
	d := saga.Define[Order]("order", 1).Initial("pending").Final("confirmed", "closed")
	saga.On(d, "pending", "confirmed", func(_ context.Context, tx rocketflow.Tx, o *Order, _ PaymentReceived) error {
		tx.AfterCommit(func() { ended <- o.Name + " is confirmed" }) // a real one writes its tables and publishes
		return nil
	})
	payBy := func(o *Order) time.Time { return o.PayBy }
	d.Deadline("pending", "closed", payBy, func(_ context.Context, tx rocketflow.Tx, o *Order) error {
		tx.AfterCommit(func() { ended <- o.Name + " is closed" })
		return nil
	})
	orders, err := saga.Register(a.Sagas(), d)
	check(err)
	ctx := context.Background()
	check(a.Start(ctx))

	paid, unpaid, limit := uuid.NewString(), uuid.NewString(), time.Now().Add(4*time.Second)
	check(a.Outbox().Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
		if err := orders.Begin(ctx, tx, paid, Order{"the paid order", limit}); err != nil {
			return err
		}
		if err := orders.Begin(ctx, tx, unpaid, Order{"the unpaid order", limit}); err != nil {
			return err
		}
		return tx.Publish(ctx, PaymentReceived{paid})
	}))
	fmt.Println(<-ended)
	fmt.Println(<-ended)
	for _, key := range []string{paid, unpaid} {
		instance, err := orders.Get(ctx, a.Pool(), key)
		check(err)
		fmt.Printf("%s: %s\n", instance.Data.Name, instance.State)
	}
	check(a.Stop(ctx))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
