package contracts

import (
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
)

// Reason is why an order was closed.
type Reason string

// The reasons for closing an order.
const (
	Timeout   Reason = "timeout"   // not paid by the deadline
	Declined  Reason = "declined"  // the bank refused the charge
	Cancelled Reason = "cancelled" // by the customer
)

// OrderPlaced says that an order was placed and its stock is reserved until PayBy. The payment service requests the charge.
type OrderPlaced struct {
	OrderID     uuid.UUID `json:"order_id"`
	SKU         string    `json:"sku"`
	Quantity    int64     `json:"quantity"`
	AmountCents int64     `json:"amount_cents"`
	PayBy       time.Time `json:"pay_by"`
}

// OrderConfirmed says that an order was paid in time and leaves the stock.
type OrderConfirmed struct {
	OrderID uuid.UUID `json:"order_id"`
}

// OrderClosed says that an order is not delivered and its stock is available again. The payment service refunds what was
// captured.
type OrderClosed struct {
	OrderID uuid.UUID `json:"order_id"`
	Reason  Reason    `json:"reason"`
}

// EventMeta implements rocketflow.Payload.
func (p OrderPlaced) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: Orders, Type: "order.placed", Subject: p.OrderID.String()}
}

// EventMeta implements rocketflow.Payload.
func (p OrderConfirmed) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: Orders, Type: "order.confirmed", Subject: p.OrderID.String()}
}

// EventMeta implements rocketflow.Payload.
func (p OrderClosed) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: Orders, Type: "order.closed", Subject: p.OrderID.String()}
}
