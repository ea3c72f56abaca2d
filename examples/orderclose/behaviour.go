package orderclose

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"
)

// behaviour is what a customer does once the order is placed.
type behaviour struct {
	name string
	act  func(ctx context.Context, c *client, o order) error
}

// behaviours are assigned in turn, so that their mix is the same for any number of orders.
var behaviours = []behaviour{
	pays, races, pays, neverPays, declines, pays, cancels, paysLate, races, pays,
	neverPays, pays, declines, races, cancels, pays, paysLate, neverPays, pays, races,
}

var (
	pays = behaviour{"pays in time", func(ctx context.Context, c *client, o order) error {
		return c.respond(ctx, o, "pay")
	}}
	neverPays = behaviour{"never pays", func(context.Context, *client, order) error { return nil }}
	declines  = behaviour{"is declined", func(ctx context.Context, c *client, o order) error {
		return c.respond(ctx, o, "decline")
	}}
	cancels = behaviour{"cancels", func(ctx context.Context, c *client, o order) error {
		if err := sleep(ctx, rand.N(300*time.Millisecond)); err != nil {
			return err
		}
		return c.cancel(ctx, o)
	}}

	// races pays within milliseconds of the deadline, before or after it: either the payment or the deadline may win, not both.
	races = behaviour{"pays at the deadline", func(ctx context.Context, c *client, o order) error {
		const spread = 50 * time.Millisecond
		if err := sleep(ctx, time.Until(o.PayBy.Add(-c.ahead))+rand.N(2*spread)-spread); err != nil {
			return err
		}
		return c.respond(ctx, o, "pay")
	}}

	// paysLate pays when the order is closed: the payment has to be refunded.
	paysLate = behaviour{"pays late", func(ctx context.Context, c *client, o order) error {
		for {
			now, err := c.order(ctx, o.ID)
			if err != nil {
				return err
			}
			if now.State != "pending" {
				return c.respond(ctx, o, "pay")
			}
			if err := sleep(ctx, pollInterval); err != nil {
				return err
			}
		}
	}}
)

// pollInterval is the pause between two requests of a customer that waits.
const pollInterval = 50 * time.Millisecond

// respond sends the bank's response as soon as the charge was requested. The services may refuse it with a conflict.
func (c *client) respond(ctx context.Context, o order, response string) error {
	for {
		status, err := c.post(ctx, c.payments, "/payments/"+o.ID+"/"+response, nil, nil)
		if err != nil || status != http.StatusNotFound {
			return err
		}
		if err := sleep(ctx, pollInterval); err != nil {
			return err
		}
	}
}

func (c *client) cancel(ctx context.Context, o order) error {
	_, err := c.post(ctx, c.orders, "/orders/"+o.ID+"/cancel", nil, nil)
	return err
}
