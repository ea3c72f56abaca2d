//go:build !race

package orderclose_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/examples/order"
	"github.com/rocketflow/rocketflow/examples/payment"
)

// act is a request of a customer or of the customer's bank.
type act string

const (
	pays     act = "pays"
	declines act = "is declined"
	cancels  act = "cancels"
)

// errTooEarly means that the charge was not requested yet.
var errTooEarly = errors.New("no charge was requested")

// do sends the request. A refusal that the services are entitled to is no error.
func (a act) do(s *shop, id uuid.UUID) error {
	ctx, cancel := s.bounded()
	defer cancel()
	var err error
	switch a {
	case pays:
		_, err = s.payments.Pay(ctx, id)
	case declines:
		_, err = s.payments.Decline(ctx, id)
	case cancels:
		_, err = s.orders.Cancel(ctx, id)
	}
	switch {
	case errors.Is(err, payment.ErrNotFound):
		return errTooEarly
	case errors.Is(err, payment.ErrFinal), errors.Is(err, order.ErrFinal):
		return nil
	case err != nil:
		return fmt.Errorf("%s, order %v: %w", a, id, err)
	}
	return nil
}

// place places an order for a quantity of an article.
func (s *shop) place(ctx context.Context, id uuid.UUID, sku string, quantity int64, within time.Duration) (order.Order, error) {
	o, _, err := s.orders.Place(ctx, order.Placement{ID: id, SKU: sku, Quantity: quantity, AmountCents: 100 * quantity, PayWithin: within})
	if err != nil {
		err = fmt.Errorf("place order %v: %w", id, err)
	}
	return o, err
}

// wait moves the clock to an instant, if that is in the future.
func (s *shop) wait(until time.Time) {
	if d := until.Sub(s.Now()); d > 0 {
		s.Advance(d)
	}
}

func latest(times []time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }
