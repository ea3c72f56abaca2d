package order

import (
	"context"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/examples/contracts"
	"github.com/rocketflow/rocketflow/saga"
)

// Flow is the life of an order.
//
//	pending ── payment captured ──────────────────────────▶ confirmed
//	   └────── payment declined, cancelled, or not in time ──▶ closed
//
// A payment that is captured after the close finds the order closed; the payment service refunds it.
func Flow() *saga.Definition[Order] {
	d := saga.Define[Order]("order", 1)
	d.Initial(Pending)
	d.Final(Confirmed, Closed)

	saga.On(d, Pending, Confirmed, func(ctx context.Context, tx rocketflow.Tx, o *Order, _ contracts.PaymentCaptured) error {
		return confirm(ctx, tx, o)
	})
	saga.On(d, Pending, Closed, func(ctx context.Context, tx rocketflow.Tx, o *Order, _ contracts.PaymentDeclined) error {
		return closeFor(ctx, tx, o, contracts.Declined)
	})
	saga.On(d, Pending, Closed, func(ctx context.Context, tx rocketflow.Tx, o *Order, _ Cancel) error {
		return closeFor(ctx, tx, o, contracts.Cancelled)
	})
	payBy := func(o *Order) time.Time { return o.PayBy.Time }
	d.Deadline(Pending, Closed, payBy, func(ctx context.Context, tx rocketflow.Tx, o *Order) error {
		return closeFor(ctx, tx, o, contracts.Timeout)
	})
	return d
}

func confirm(ctx context.Context, tx rocketflow.Tx, o *Order) error {
	if err := finish(ctx, tx, o, Confirmed, ""); err != nil {
		return err
	}
	return tx.Publish(ctx, contracts.OrderConfirmed{OrderID: o.ID})
}

func closeFor(ctx context.Context, tx rocketflow.Tx, o *Order, reason contracts.Reason) error {
	if err := finish(ctx, tx, o, Closed, reason); err != nil {
		return err
	}
	return tx.Publish(ctx, contracts.OrderClosed{OrderID: o.ID, Reason: reason})
}
