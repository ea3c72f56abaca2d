// Package contracts holds the events that the order and the payment service exchange, which is all that either needs of the
// other. A payload's EventMeta names its topic, type and stream; its JSON form is the contract.
package contracts

import "github.com/rocketflow/rocketflow/broker"

// Topics. Each carries the events of one service; those of one order are delivered in the order of their commits.
const (
	Orders   = "orders"
	Payments = "payments"
	// OrderTimeouts carries the deadlines of orders, from the order service to itself.
	OrderTimeouts = "order-timeouts"
)

// Topics returns all three with their kinds, for app.Config.Topics.
func Topics() []broker.Topic {
	return []broker.Topic{{Name: Orders}, {Name: Payments}, {Name: OrderTimeouts, Kind: broker.Delay}}
}
