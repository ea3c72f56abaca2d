package order

import (
	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/examples/contracts"
	"github.com/rocketflow/rocketflow/examples/service"
)

// State is the state of an order.
type State = string

// The states of an order. It begins pending; confirmed and closed are final.
const (
	Pending   State = "pending"
	Confirmed State = "confirmed"
	Closed    State = "closed"
)

// Order is a row of the orders, and its JSON form in responses.
type Order struct {
	ID          uuid.UUID        `json:"id"`
	SKU         string           `json:"sku"`
	Quantity    int64            `json:"quantity"`
	AmountCents int64            `json:"amount_cents"`
	State       State            `json:"state"`
	Reason      contracts.Reason `json:"reason"` // why it was closed, or empty
	PlacedAt    service.Time     `json:"placed_at"`
	PayBy       service.Time     `json:"pay_by"`
	FinishedAt  *service.Time    `json:"finished_at"`
}

// Stock is how much there is of an article.
type Stock struct {
	SKU      string `json:"sku"`
	OnHand   int64  `json:"on_hand"`
	Reserved int64  `json:"reserved"` // for pending orders
}

// Cancel is the payload by which a cancellation is applied to the saga. It is never published.
type Cancel struct{ OrderID uuid.UUID }

// EventMeta implements rocketflow.Payload.
func (c Cancel) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: contracts.OrderTimeouts, Type: "order.cancel", Subject: c.OrderID.String()}
}
