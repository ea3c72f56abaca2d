package order

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/examples/contracts"
	"github.com/rocketflow/rocketflow/saga"
)

// Errors of requests that the service refuses.
var (
	ErrNotFound  = errors.New("no such order")
	ErrFinal     = errors.New("the order is final")
	ErrNoStock   = errors.New("not enough in stock")
	ErrNoArticle = errors.New("no such article")
	ErrReserved  = errors.New("less than what is reserved")
	ErrOther     = errors.New("another order has this id")
)

// Placement is a request for an order.
type Placement struct {
	ID          uuid.UUID
	SKU         string
	Quantity    int64
	AmountCents int64
	PayWithin   time.Duration
}

// Service places and cancels orders. Flow says what happens to them otherwise.
type Service struct {
	pool *pgxpool.Pool
	tx   rocketflow.Transactor
	flow *saga.Saga[Order]
}

// NewService returns the service.
func NewService(pool *pgxpool.Pool, tx rocketflow.Transactor, flow *saga.Saga[Order]) *Service {
	return &Service{pool, tx, flow}
}

// Place reserves the stock and requests the payment. It may be repeated: then it returns the order as it is, and false. If
// the order with that id is a different one, the error is ErrOther.
func (s *Service) Place(ctx context.Context, p Placement) (o Order, placed bool, err error) {
	err = s.tx.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
		o, placed, err = insert(ctx, tx, p)
		if err != nil || !placed {
			return err
		}
		if err := s.flow.Begin(ctx, tx, o.ID.String(), o); err != nil {
			return err
		}
		if err := reserve(ctx, tx, o); err != nil {
			return err
		}
		return tx.Publish(ctx, contracts.OrderPlaced{
			OrderID: o.ID, SKU: o.SKU, Quantity: o.Quantity, AmountCents: o.AmountCents, PayBy: o.PayBy.Time,
		})
	})
	if err == nil && !placed {
		if o, err = s.Get(ctx, p.ID); err == nil && !p.matches(o) {
			return Order{}, false, ErrOther
		}
	}
	return o, placed, err
}

// matches reports whether o is the order that p requests.
func (p Placement) matches(o Order) bool {
	return p.SKU == o.SKU && p.Quantity == o.Quantity && p.AmountCents == o.AmountCents &&
		p.PayWithin.Truncate(time.Microsecond) == o.PayBy.Sub(o.PlacedAt.Time)
}

// Cancel closes a pending order at the request of its customer.
func (s *Service) Cancel(ctx context.Context, id uuid.UUID) (Order, error) {
	if _, err := s.Get(ctx, id); err != nil {
		return Order{}, err
	}
	err := s.tx.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
		return s.flow.Apply(ctx, tx, id.String(), Cancel{id})
	})
	if errors.Is(err, saga.ErrNotExpected) || errors.Is(err, saga.ErrNotFound) { // or finished long ago
		return Order{}, ErrFinal
	}
	if err != nil {
		return Order{}, fmt.Errorf("cancel order: %w", err)
	}
	return s.Get(ctx, id)
}

// Get returns an order.
func (s *Service) Get(ctx context.Context, id uuid.UUID) (Order, error) {
	return found[Order](ctx, s.pool, ErrNotFound, "Get", id)
}

// List returns up to limit orders with an id greater than after, in the order of their ids. An empty state matches all.
func (s *Service) List(ctx context.Context, state State, after uuid.UUID, limit int) ([]Order, error) {
	rows, _ := s.pool.Query(ctx, sql.Get("List"), state, after, limit) // rows carry the error
	return pgx.CollectRows(rows, pgx.RowToStructByName[Order])
}

// PutStock sets how much there is of an article.
func (s *Service) PutStock(ctx context.Context, sku string, onHand int64) (Stock, error) {
	return found[Stock](ctx, s.pool, ErrReserved, "PutStock", sku, onHand)
}

// Stock returns how much there is of an article.
func (s *Service) Stock(ctx context.Context, sku string) (Stock, error) {
	return found[Stock](ctx, s.pool, ErrNoArticle, "GetStock", sku)
}
