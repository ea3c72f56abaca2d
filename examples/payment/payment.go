package payment

import "github.com/google/uuid"

// State is the state of a payment.
type State = string

// The states of a payment. It begins requested.
const (
	Requested State = "requested"
	Captured  State = "captured"
	Declined  State = "declined" // by the bank; final
	Refunded  State = "refunded" // captured, and refunded as the order was closed; final
	Void      State = "void"     // the order was closed before anything was charged
)

// Payment is the charge of an order.
type Payment struct {
	OrderID     uuid.UUID `json:"order_id"`
	AmountCents int64     `json:"amount_cents"`
	State       State     `json:"state"`
}
