package payment

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/examples/contracts"
	"github.com/rocketflow/rocketflow/handlers"
)

// Errors of requests that the service refuses.
var (
	ErrNotFound = errors.New("no charge was requested")
	ErrFinal    = errors.New("the bank has responded otherwise before")
)

// Subscribe registers the handlers of the order service's events.
func (s *Service) Subscribe(r *handlers.Router) {
	handlers.On(r, "payment", s.orderPlaced)
	handlers.On(r, "payment", s.orderClosed)
}

// orderPlaced requests the charge.
func (s *Service) orderPlaced(ctx context.Context, tx rocketflow.Tx, p contracts.OrderPlaced) error {
	return request(ctx, tx, p.OrderID, p.AmountCents)
}

// orderClosed voids the charge, or refunds it if it was captured.
func (s *Service) orderClosed(ctx context.Context, tx rocketflow.Tx, p contracts.OrderClosed) error {
	payment, err := lock(ctx, tx, p.OrderID)
	if err != nil {
		return err
	}
	switch payment.State {
	case Requested:
		return payment.become(ctx, tx, Void)
	case Captured:
		return payment.become(ctx, tx, Refunded, payment.refunded())
	}
	return nil
}

// Pay records that the bank has paid. A payment for a closed order is refunded at once.
func (s *Service) Pay(ctx context.Context, orderID uuid.UUID) (Payment, error) {
	return s.change(ctx, orderID, func(ctx context.Context, tx rocketflow.Tx, p *Payment) error {
		switch p.State {
		case Requested:
			return p.become(ctx, tx, Captured, p.captured())
		case Void:
			return p.become(ctx, tx, Refunded, p.captured(), p.refunded())
		case Declined:
			return ErrFinal
		}
		return nil // the request is repeated
	})
}

// Decline records that the bank refuses to pay.
func (s *Service) Decline(ctx context.Context, orderID uuid.UUID) (Payment, error) {
	return s.change(ctx, orderID, func(ctx context.Context, tx rocketflow.Tx, p *Payment) error {
		switch p.State {
		case Requested:
			return p.become(ctx, tx, Declined, contracts.PaymentDeclined{OrderID: p.OrderID})
		case Captured, Refunded:
			return ErrFinal
		}
		return nil // the request is repeated, or the charge is void
	})
}

// change runs fn on the locked payment, in a transaction.
func (s *Service) change(ctx context.Context, orderID uuid.UUID, fn func(context.Context, rocketflow.Tx, *Payment) error) (p Payment, err error) {
	err = s.tx.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
		if p, err = lock(ctx, tx, orderID); err != nil {
			return err
		}
		return fn(ctx, tx, &p)
	})
	return p, err
}

// become changes the state and publishes events.
func (p *Payment) become(ctx context.Context, tx rocketflow.Tx, state State, events ...rocketflow.Payload) error {
	if _, err := tx.Exec(ctx, sql.Get("SetState"), p.OrderID, state); err != nil {
		return fmt.Errorf("set payment %s: %w", state, err)
	}
	p.State = state
	return tx.Publish(ctx, events...)
}

func (p *Payment) captured() rocketflow.Payload {
	return contracts.PaymentCaptured{OrderID: p.OrderID, AmountCents: p.AmountCents}
}

func (p *Payment) refunded() rocketflow.Payload {
	return contracts.PaymentRefunded{OrderID: p.OrderID, AmountCents: p.AmountCents}
}
