package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
)

var errCustomerGone = errors.New("customer was deleted")

// A handler says with its error what becomes of the event.
func ExampleDiscard() {
	remind := func(_ context.Context, _ rocketflow.Tx, p OrderPlaced) error {
		if p.Cents == 0 {
			return handlers.Discard(errors.New("the order is free"))
		}
		return nil
	}
	fmt.Println(remind(context.Background(), nil, OrderPlaced{OrderID: "o-1"}))
	// Output: discard: the order is free
}

// A handler gives up on an event that no further attempt can help.
func ExampleDead() {
	bill := func(_ context.Context, _ rocketflow.Tx, p OrderPlaced) error {
		if p.Cents < 0 {
			return handlers.Dead(fmt.Errorf("order %s has a negative price", p.OrderID))
		}
		return nil
	}
	fmt.Println(bill(context.Background(), nil, OrderPlaced{OrderID: "o-1", Cents: -1}))
	// Output: order o-1 has a negative price
}

// A handler waits for a state that it can't change, without counting an attempt.
func ExampleRetryAfter() {
	bill := func(context.Context, rocketflow.Tx, OrderPlaced) error {
		return handlers.RetryAfter(10 * time.Minute) // the shop is closed for its inventory
	}
	var later *rocketflow.RetryAfterError
	if err := bill(context.Background(), nil, OrderPlaced{OrderID: "o-1"}); errors.As(err, &later) {
		fmt.Println("again in", later.After)
	}
	// Output: again in 10m0s
}

// The rules of a policy say for errors of any handler of a consumer what becomes of the event.
func ExampleRetryPolicy() {
	policy := handlers.RetryPolicy{
		Attempts: 20,
		Max:      5 * time.Minute,
		Rules: []handlers.RetryRule{
			{Is: errCustomerGone, Action: handlers.ActionDiscard},
			{Match: handlers.ErrorAs[*net.OpError], Action: handlers.ActionWait, Wait: 30 * time.Second},
			{Is: context.DeadlineExceeded, Retry: handlers.RetryPolicy{Base: time.Minute, Attempts: 5}},
		},
	}
	configure := func(r *handlers.Router) {
		r.Configure("mailer", handlers.ConsumerConfig{Retry: policy})
	}
	_ = configure
	fmt.Println(len(policy.Rules), "rules")
	// Output: 3 rules
}

func ExampleErrorAs() {
	err := fmt.Errorf("send mail: %w", &net.OpError{Op: "dial", Err: errors.New("connection refused")})
	fmt.Println(handlers.ErrorAs[*net.OpError](err), handlers.ErrorAs[*net.DNSError](err))
	// Output: true false
}
