package rocketflow_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rocketflow/rocketflow"
)

// OrderPlaced is an event of an order. Events of one order are delivered in order.
type OrderPlaced struct {
	OrderID string `json:"order_id"`
	Cents   int64  `json:"cents"`
}

// EventMeta is a method of the value, so that the zero value names topic and type.
func (p OrderPlaced) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "orders", Type: "order.placed", Subject: p.OrderID}
}

func ExamplePayload() {
	var p rocketflow.Payload = OrderPlaced{OrderID: "o-1", Cents: 4200}
	meta := p.EventMeta()
	fmt.Println(meta.Topic, meta.Type, meta.Subject)
	// Output: orders order.placed o-1
}

func ExampleEvent_Stream() {
	e := rocketflow.Event{Source: "order", Topic: "orders", Subject: "o-1", Sequence: 1795239261468301}
	fmt.Println(e.Ordered(), e.Stream())
	fmt.Println(rocketflow.Event{Source: "order", Topic: "orders", Subject: "o-1"}.Ordered())
	// Output:
	// true {order orders o-1}
	// false
}

// A middleware that logs how long each handler takes.
func ExampleMiddleware() {
	var timed rocketflow.Middleware = func(next rocketflow.HandlerFunc) rocketflow.HandlerFunc {
		return func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
			begin := time.Now()
			err := next(ctx, tx, e)
			fmt.Println(e.Type, "took less than a minute:", time.Since(begin) < time.Minute)
			return err
		}
	}
	handler := timed(func(context.Context, rocketflow.Tx, rocketflow.Event) error { return nil })
	_ = handler(context.Background(), nil, rocketflow.Event{Type: "order.placed"})
	// Output: order.placed took less than a minute: true
}

func ExampleBackpressureError() {
	var err error = &rocketflow.BackpressureError{Backlog: 100_000, Oldest: 90 * time.Second}
	if errors.Is(err, rocketflow.ErrBackpressure) {
		fmt.Println(err)
	}
	// Output: outbox is full: 100000 events are owed to the broker, the oldest for 1m30s
}
