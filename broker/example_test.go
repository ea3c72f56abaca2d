package broker_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rocketflow/rocketflow/broker"
)

// An error that matches ErrRejected says that the message was not stored, and that another attempt won't help. After any other error the
// message may have been stored: send it again, and let consumers ignore the duplicate.
func ExampleErrRejected() {
	for _, err := range []error{
		fmt.Errorf("send to topic orders: %w", broker.ErrTopicNotFound),
		fmt.Errorf("send to topic orders: %w", broker.ErrUnavailable),
		&broker.ReservedPropertyError{Property: "TAGS"},
	} {
		fmt.Println(errors.Is(err, broker.ErrRejected), err)
	}
	// Output:
	// true send to topic orders: topic not found
	// false send to topic orders: broker unavailable
	// true property "TAGS" is reserved: choose another name
}

// A Begin says where a group begins in a topic that it has never read.
func ExampleBegin() {
	noon := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	for _, begin := range []broker.Begin{broker.BeginOldest(), broker.BeginNewest(), broker.BeginAt(noon)} {
		s := broker.Subscription{Group: "billing", Topics: []string{"orders"}, Begin: begin}
		fmt.Println(s.Group, "begins at", s.Begin)
	}
	// Output:
	// billing begins at oldest
	// billing begins at newest
	// billing begins at 2026-11-28T12:00:00Z
}

// A Checker looks up what became of the local transaction. While it isn't known, as when the database can't be reached, it returns
// Unknown, and the broker repeats the check.
func ExampleChecker() {
	committed := map[string]bool{"order-1": true, "order-2": false} // stands for a table
	var checker broker.Checker = func(_ context.Context, c broker.Check) (broker.Decision, func(error)) {
		ok, known := committed[c.Message.Properties["order"]]
		switch {
		case !known:
			return broker.Unknown, nil
		case !ok:
			return broker.Rollback, nil
		}
		return broker.Commit, func(err error) { fmt.Println("taken by the broker:", err == nil) }
	}

	for _, order := range []string{"order-1", "order-2", "order-3"} { // a driver does this
		m := broker.Message{Topic: "orders", Properties: map[string]string{"order": order}}
		decision, done := checker(context.Background(), broker.Check{Message: broker.Delivery{Message: m, Attempt: 1}})
		fmt.Println(order, decision)
		if done != nil {
			done(nil)
		}
	}
	// Output:
	// order-1 commit
	// taken by the broker: true
	// order-2 rollback
	// order-3 unknown
}

// A property of a reserved name would change what the message is.
func ExampleReserved() {
	for _, name := range []string{"tenant", "TIMER_DELIVER_MS", "TRAN_MSG"} {
		fmt.Println(name, broker.Reserved(name))
	}
	// Output:
	// tenant false
	// TIMER_DELIVER_MS true
	// TRAN_MSG true
}
