package saga_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/saga"
)

type Purchase struct {
	OrderID  string    `json:"order_id"`
	PlacedAt time.Time `json:"placed_at"`
	Reminded bool      `json:"reminded"`
}

type PurchasePlaced struct {
	OrderID  string    `json:"order_id"`
	PlacedAt time.Time `json:"placed_at"`
}

func (p PurchasePlaced) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "orders", Type: "order.placed", Subject: p.OrderID}
}

type PaymentReceived struct{ OrderID string }

func (p PaymentReceived) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "payments", Type: "payment.received", Subject: p.OrderID}
}

type ParcelDelivered struct{ ParcelID, OrderID string }

func (p ParcelDelivered) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "parcels", Type: "parcel.delivered", Subject: p.ParcelID}
}

type OrderClosed struct{ OrderID string }

func (p OrderClosed) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "orders", Type: "order.closed", Subject: p.OrderID}
}

// An order is closed unless it is paid within 15 minutes.
func ExampleDefine() {
	d := saga.Define[Purchase]("purchase", 1).
		Initial("awaiting_payment").
		Deadline("awaiting_payment", "closed",
			func(p *Purchase) time.Time { return p.PlacedAt.Add(15 * time.Minute) },
			func(ctx context.Context, tx rocketflow.Tx, p *Purchase) error {
				return tx.Publish(ctx, OrderClosed{OrderID: p.OrderID})
			}).
		Final("paid", "closed")
	saga.On(d, "awaiting_payment", "paid", func(ctx context.Context, tx rocketflow.Tx, p *Purchase, e PaymentReceived) error {
		_, err := tx.Exec(ctx, "UPDATE orders SET paid = true WHERE id = $1", e.OrderID)
		return err
	})
	fmt.Print(d.Mermaid())
	// Output:
	// stateDiagram-v2
	//     [*] --> awaiting_payment
	//     awaiting_payment --> paid : payment.received
	//     awaiting_payment --> closed : deadline
	//     paid --> [*]
	//     closed --> [*]
}

// An event of another service begins the saga.
func ExampleStartOn() {
	d := saga.Define[Purchase]("purchase", 1).Initial("awaiting_payment").NoDeadline("awaiting_payment").Final("paid")
	saga.StartOn(d, func(_ context.Context, _ rocketflow.Tx, e PurchasePlaced) (Purchase, error) {
		return Purchase{OrderID: e.OrderID, PlacedAt: e.PlacedAt}, nil
	})
	saga.On[PaymentReceived](d, "awaiting_payment", "paid", nil)
	fmt.Print(d.Mermaid())
	// Output:
	// stateDiagram-v2
	//     [*] --> awaiting_payment
	//     awaiting_payment --> paid : payment.received
	//     paid --> [*]
}

// The subject of a parcel's event is the parcel, and the saga's key is the order.
func ExampleKeyBy() {
	d := saga.Define[Purchase]("purchase", 1).Initial("paid").NoDeadline("paid").Final("delivered")
	saga.On[ParcelDelivered](d, "paid", "delivered", nil)
	saga.KeyBy(d, func(e ParcelDelivered) string { return e.OrderID })
}

// Most parcels belong to no purchase: their events don't wait for a saga to begin. Those of a purchase wait for a day at most
// until it is paid.
func ExampleWait() {
	d := saga.Define[Purchase]("purchase", 1).Initial("awaiting_payment").NoDeadline("awaiting_payment", "paid").Final("delivered")
	saga.On[PaymentReceived](d, "awaiting_payment", "paid", nil)
	saga.On[ParcelDelivered](d, "paid", "delivered", nil)
	saga.Wait[ParcelDelivered](d, saga.WaitPolicy{Limit: 24 * time.Hour, UnbegunLimit: -1})
}

// Register lists all that is wrong with a definition.
func ExampleRegister() {
	engine := exampleEngine()
	d := saga.Define[Purchase]("purchase", 1).Initial("awaiting_payment").Final("paid")
	saga.On[PaymentReceived](d, "awaiting_payment", "settled", nil)

	_, err := saga.Register(engine, d)
	var invalid *saga.DefinitionError
	if errors.As(err, &invalid) {
		for _, problem := range invalid.Problems {
			fmt.Println(problem)
		}
	}
	// Output:
	// state awaiting_payment: it has neither Deadline nor NoDeadline
	// transition awaiting_payment --payment.received--> settled: target settled is not declared
}

// New names the field that is missing.
func ExampleNew() {
	_, err := saga.New(saga.Config{Pool: new(pgxpool.Pool), Router: router{}, Consumer: "orders"})
	var field *rocketflow.FieldError
	if errors.As(err, &field) {
		fmt.Println(field.Field, "is", field.Reason)
	}
	// Output: saga.Config.Transactor is missing
}

// The transaction that places an order begins its saga, too.
func ExampleSaga_Begin() {
	var (
		purchases *saga.Saga[Purchase]  // from saga.Register
		box       rocketflow.Transactor // from outbox.New
	)
	_ = func(ctx context.Context, id string) error {
		return box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
			if err := purchases.Begin(ctx, tx, id, Purchase{OrderID: id, PlacedAt: time.Now()}); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "INSERT INTO orders (id) VALUES ($1)", id)
			return err
		})
	}
}

// A function reads the source of the event that it is called for.
func ExampleEventFrom() {
	d := saga.Define[Purchase]("purchase", 1).Initial("awaiting_payment").NoDeadline("awaiting_payment").Final("paid")
	saga.On(d, "awaiting_payment", "paid", func(ctx context.Context, tx rocketflow.Tx, p *Purchase, _ PaymentReceived) error {
		event, _ := saga.EventFrom(ctx)
		_, err := tx.Exec(ctx, "UPDATE orders SET paid_by = $2 WHERE id = $1", p.OrderID, event.Source)
		return err
	})
}

// Two listeners observe the same engine.
func ExampleTee() {
	count := &saga.Listener{Ignored: func(saga.IgnoredInfo) { fmt.Println("one more ignored event") }}
	log := &saga.Listener{Ignored: func(i saga.IgnoredInfo) { fmt.Printf("%s of saga %s ignored: %s\n", i.Type, i.Saga, i.Reason) }}
	both := saga.Tee(count, log) // for saga.Config.Listener

	both.Ignored(saga.IgnoredInfo{Saga: "purchase", Type: "payment.received", Reason: saga.Finished})
	// Output:
	// one more ignored event
	// payment.received of saga purchase ignored: finished
}

// exampleEngine returns an engine that is never started.
func exampleEngine() *saga.Engine {
	engine, err := saga.New(saga.Config{Pool: new(pgxpool.Pool), Router: router{}, Transactor: transactor{}, Consumer: "orders"})
	if err != nil {
		panic(err)
	}
	return engine
}
