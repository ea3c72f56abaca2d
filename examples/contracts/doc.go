// Package contracts holds the events by which the order and the payment service speak to each other: all that either
// knows of the other. A payload says where it belongs; its JSON form is the contract.
package contracts

import "github.com/rocketflow/rocketflow/broker"

// Topics. Each carries the events of one service, in order for each order.
const (
	Orders   = "orders"
	Payments = "payments"
	// OrderTimeouts brings the order service its own alarms back.
	OrderTimeouts = "order-timeouts"
)

// Topics describes all three for whoever creates them.
func Topics() []broker.Topic {
	return []broker.Topic{{Name: Orders}, {Name: Payments}, {Name: OrderTimeouts, Kind: broker.Delay}}
}
