package orderclose

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"
)

// manner is how a customer behaves once the order is placed.
type manner struct {
	name string
	act  func(ctx context.Context, c *client, o order) error
}

// manners are dealt out in turn, so their mix is the same for any number of orders.
var manners = []manner{
	pays, races, pays, neverPays, declines, pays, cancels, paysLate, races, pays,
	neverPays, pays, declines, races, cancels, pays, paysLate, neverPays, pays, races,
}

var (
	pays = manner{"pays in time", func(ctx context.Context, c *client, o order) error {
		return c.answer(ctx, o, "pay")
	}}
	neverPays = manner{"never pays", func(context.Context, *client, order) error { return nil }}
	declines  = manner{"is declined", func(ctx context.Context, c *client, o order) error {
		return c.answer(ctx, o, "decline")
	}}
	cancels = manner{"cancels", func(ctx context.Context, c *client, o order) error {
		if err := sleep(ctx, rand.N(300*time.Millisecond)); err != nil {
			return err
		}
		return c.cancel(ctx, o)
	}}

	// races pays within milliseconds of the deadline, on either side: whoever is first wins, and only one may.
	races = manner{"pays at the deadline", func(ctx context.Context, c *client, o order) error {
		const spread = 50 * time.Millisecond
		if err := sleep(ctx, time.Until(o.PayBy.Add(-c.ahead))+rand.N(2*spread)-spread); err != nil {
			return err
		}
		return c.answer(ctx, o, "pay")
	}}

	// paysLate pays once the order was closed: the money has to come back.
	paysLate = manner{"pays late", func(ctx context.Context, c *client, o order) error {
		for {
			now, err := c.order(ctx, o.ID)
			if err != nil {
				return err
			}
			if now.State != "pending" {
				return c.answer(ctx, o, "pay")
			}
			if err := sleep(ctx, pollInterval); err != nil {
				return err
			}
		}
	}}
)

// pollInterval is how often a customer looks again.
const pollInterval = 50 * time.Millisecond

// answer is the bank's, as soon as it was asked for the charge. A conflict is the services' right.
func (c *client) answer(ctx context.Context, o order, answer string) error {
	for {
		status, err := c.post(ctx, c.payments, "/payments/"+o.ID+"/"+answer, nil, nil)
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
