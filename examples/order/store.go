package order

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/examples/contracts"
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

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// one runs the statement of a name and returns its only row, or an error that matches pgx.ErrNoRows.
func one[T any](ctx context.Context, q querier, name string, args ...any) (T, error) {
	rows, _ := q.Query(ctx, sql.Get(name), args...) // rows carry the error
	v, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[T])
	if err != nil {
		return v, fmt.Errorf("%s: %w", name, err)
	}
	return v, nil
}

// found is like one, but returns missing if there is no row.
func found[T any](ctx context.Context, q querier, missing error, name string, args ...any) (T, error) {
	v, err := one[T](ctx, q, name, args...)
	if errors.Is(err, pgx.ErrNoRows) {
		err = missing
	}
	return v, err
}

// insert adds an order. It returns false if there is one with that id.
func insert(ctx context.Context, tx pgx.Tx, p Placement) (Order, bool, error) {
	o, err := one[Order](ctx, tx, "Insert", p.ID, p.SKU, p.Quantity, p.AmountCents, p.PayWithin)
	if errors.Is(err, pgx.ErrNoRows) {
		return o, false, nil
	}
	return o, err == nil, err
}

// reserve reserves stock for o, or returns ErrNoStock.
func reserve(ctx context.Context, tx pgx.Tx, o Order) error {
	tag, err := tx.Exec(ctx, sql.Get("Reserve"), o.SKU, o.Quantity)
	if err != nil {
		return fmt.Errorf("reserve stock: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNoStock
	}
	return nil
}

// finish sets the final state of o and takes its reservation off the stock.
func finish(ctx context.Context, tx pgx.Tx, o *Order, to State, reason contracts.Reason) (err error) {
	*o, err = one[Order](ctx, tx, "Finish", o.ID, to, reason)
	return err
}
