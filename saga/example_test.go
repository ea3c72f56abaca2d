package saga_test

import (
	"context"
	"fmt"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/saga"
)

type Purchase struct {
	OrderID  string    `json:"order_id"`
	PlacedAt time.Time `json:"placed_at"`
}

type PaymentReceived struct{ OrderID string }

func (p PaymentReceived) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "payments", Type: "payment.received", Subject: p.OrderID}
}

type OrderClosed struct{ OrderID string }

func (p OrderClosed) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "orders", Type: "order.closed", Subject: p.OrderID}
}

// An order that is closed unless it is paid within 15 minutes.
func ExampleDefine() {
	d := saga.Define[Purchase]("purchase", 1).
		Initial("awaiting_payment").
		Deadline("awaiting_payment", "closed",
			func(p *Purchase) time.Time { return p.PlacedAt.Add(15 * time.Minute) },
			func(ctx context.Context, tx rocketflow.Tx, p *Purchase) error {
				return tx.Publish(ctx, OrderClosed{OrderID: p.OrderID})
			}).
		Final("paid", "closed")
	saga.On(d, "awaiting_payment", "paid", func(ctx context.Context, tx rocketflow.Tx, p *Purchase, e PaymentReceived) error {
		_, err := tx.Exec(ctx, "UPDATE orders SET paid = true WHERE id = $1", e.OrderID)
		return err
	})
	fmt.Print(d.Mermaid())
	// Output:
	// stateDiagram-v2
	//     [*] --> awaiting_payment
	//     awaiting_payment --> paid : payment.received
	//     awaiting_payment --> closed : deadline
	//     paid --> [*]
	//     closed --> [*]
}
