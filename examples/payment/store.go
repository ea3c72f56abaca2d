package payment

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/examples/service"
)

// Schema is the DDL of the service's own tables. It can be applied repeatedly.
//
//go:embed schema.sql
var Schema string

//go:embed queries.sql
var queriesSQL string

// sql names tables without a schema: the pool's search path begins with the service's.
var sql = service.ParseStatements(queriesSQL)

// Service records the bank's responses, and handles the events of orders (Subscribe).
type Service struct {
	pool *pgxpool.Pool
	tx   rocketflow.Transactor
}

// NewService returns the service.
func NewService(pool *pgxpool.Pool, tx rocketflow.Transactor) *Service { return &Service{pool, tx} }

// Get returns the payment of an order.
func (s *Service) Get(ctx context.Context, orderID uuid.UUID) (Payment, error) {
	rows, _ := s.pool.Query(ctx, sql.Get("Get"), orderID) // rows carry the error
	return collect(rows)
}

func lock(ctx context.Context, tx pgx.Tx, orderID uuid.UUID) (Payment, error) {
	rows, _ := tx.Query(ctx, sql.Get("Lock"), orderID) // rows carry the error
	return collect(rows)
}

func collect(rows pgx.Rows) (Payment, error) {
	p, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Payment])
	if errors.Is(err, pgx.ErrNoRows) {
		return p, ErrNotFound
	}
	if err != nil {
		return p, fmt.Errorf("get payment: %w", err)
	}
	return p, nil
}

func request(ctx context.Context, tx pgx.Tx, orderID uuid.UUID, amountCents int64) error {
	if _, err := tx.Exec(ctx, sql.Get("Request"), orderID, amountCents); err != nil {
		return fmt.Errorf("request payment: %w", err)
	}
	return nil
}
