package contracts

import (
	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
)

// PaymentCaptured: the bank has paid.
type PaymentCaptured struct {
	OrderID     uuid.UUID `json:"order_id"`
	AmountCents int64     `json:"amount_cents"`
}

// PaymentDeclined: the bank refused. It is final.
type PaymentDeclined struct {
	OrderID uuid.UUID `json:"order_id"`
}

// PaymentRefunded: captured for an order that was closed, and given back.
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
