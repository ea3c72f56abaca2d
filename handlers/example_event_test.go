package handlers_test

import (
	"context"
	"fmt"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
)

// A handler of several types of one topic reads the bodies itself.
func ExampleDecode() {
	handle := func(_ context.Context, _ rocketflow.Tx, e rocketflow.Event) error {
		p, err := handlers.Decode[OrderPlaced](e)
		if err != nil {
			return err // a dead letter
		}
		fmt.Println(p.OrderID, p.Cents)
		return nil
	}
	_ = handle(context.Background(), nil, rocketflow.Event{Type: "order.placed", Body: []byte(`{"order_id":"o-1","cents":4200}`)})
	fmt.Println(handle(context.Background(), nil, rocketflow.Event{Type: "order.placed", Body: []byte(`{"order_id":7}`)}) != nil)
	// Output:
	// o-1 4200
	// true
}

// A handler that On registered gets at what its event carries beside the payload.
func ExampleEventFrom() {
	handle := func(ctx context.Context, _ rocketflow.Tx, _ OrderPlaced) error {
		if e, ok := handlers.EventFrom(ctx); ok {
			fmt.Println(e.Headers["tenant"], handlers.Attempt(ctx), handlers.Consumer(ctx))
		} else {
			fmt.Println("not called by a router")
		}
		return nil
	}
	_ = handle(context.Background(), nil, OrderPlaced{})
	// Output: not called by a router
}

func ExampleConfig_Group() {
	fmt.Println(handlers.Config{Source: "billing"}.Group("invoices"))
	fmt.Println(handlers.Config{Source: "shop/billing"}.Group("invoices"))
	// Output:
	// billing-invoices
	// shop-billing-invoices
}

func ExampleTee() {
	count := 0
	both := handlers.Tee(
		&handlers.Listener{Dead: func(i handlers.FailureInfo) { fmt.Println("dead letter of", i.Consumer) }},
		&handlers.Listener{Dead: func(handlers.FailureInfo) { count++ }},
	)
	both.Dead(handlers.FailureInfo{EventInfo: handlers.EventInfo{Consumer: "invoices"}})
	fmt.Println(count)
	// Output:
	// dead letter of invoices
	// 1
}
