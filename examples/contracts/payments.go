package contracts

import (
	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
)

// PaymentCaptured says that the bank has paid for an order.
type PaymentCaptured struct {
	OrderID     uuid.UUID `json:"order_id"`
	AmountCents int64     `json:"amount_cents"`
}

// PaymentDeclined says that the bank has refused to pay for an order, which is final.
type PaymentDeclined struct {
	OrderID uuid.UUID `json:"order_id"`
}

// PaymentRefunded says that what was captured for a closed order was refunded.
type PaymentRefunded struct {
	OrderID     uuid.UUID `json:"order_id"`
	AmountCents int64     `json:"amount_cents"`
}

// EventMeta implements rocketflow.Payload.
func (p PaymentCaptured) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: Payments, Type: "payment.captured", Subject: p.OrderID.String()}
}

// EventMeta implements rocketflow.Payload.
func (p PaymentDeclined) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: Payments, Type: "payment.declined", Subject: p.OrderID.String()}
}

// EventMeta implements rocketflow.Payload.
func (p PaymentRefunded) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: Payments, Type: "payment.refunded", Subject: p.OrderID.String()}
}
