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

// What the service refuses.
var (
	ErrNotFound = errors.New("no charge was asked for")
	ErrFinal    = errors.New("the bank has answered otherwise")
)

// Subscribe registers what the service does about orders.
func (s *Service) Subscribe(r *handlers.Router) {
	handlers.On(r, "payment", s.orderPlaced)
	handlers.On(r, "payment", s.orderClosed)
}

// orderPlaced asks for the charge.
func (s *Service) orderPlaced(ctx context.Context, tx rocketflow.Tx, p contracts.OrderPlaced) error {
	return request(ctx, tx, p.OrderID, p.AmountCents)
}

// orderClosed charges no more, and gives back what was charged.
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

// Pay: the bank has paid. Money for a closed order goes back at once.
func (s *Service) Pay(ctx context.Context, orderID uuid.UUID) (Payment, error) {
	return s.answer(ctx, orderID, func(ctx context.Context, tx rocketflow.Tx, p *Payment) error {
		switch p.State {
		case Requested:
			return p.become(ctx, tx, Captured, p.captured())
		case Void:
			return p.become(ctx, tx, Refunded, p.captured(), p.refunded())
		case Declined:
			return ErrFinal
		}
		return nil // again
	})
}

// Decline: the bank refuses.
func (s *Service) Decline(ctx context.Context, orderID uuid.UUID) (Payment, error) {
	return s.answer(ctx, orderID, func(ctx context.Context, tx rocketflow.Tx, p *Payment) error {
		switch p.State {
		case Requested:
			return p.become(ctx, tx, Declined, contracts.PaymentDeclined{OrderID: p.OrderID})
		case Captured, Refunded:
			return ErrFinal
		}
		return nil // again, or there is nothing to decline any more
	})
}

// answer runs fn on the locked payment.
func (s *Service) answer(ctx context.Context, orderID uuid.UUID, fn func(context.Context, rocketflow.Tx, *Payment) error) (p Payment, err error) {
	err = s.tx.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
		if p, err = lock(ctx, tx, orderID); err != nil {
			return err
		}
		return fn(ctx, tx, &p)
	})
	return p, err
}

// become changes the state and tells the others.
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
