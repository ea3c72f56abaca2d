package saga

import (
	"context"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
)

// savepoint begins a savepoint in tx. It returns the savepoint, and the transaction for the function that runs in it. A
// rollback of the savepoint also takes back what was published in it and what was to run after the commit.
func savepoint(ctx context.Context, tx rocketflow.Tx) (pgx.Tx, rocketflow.Tx, error) {
	sp, err := tx.Begin(ctx)
	if err != nil {
		return nil, nil, err
	}
	if inner, ok := sp.(rocketflow.Tx); ok {
		return sp, functionTx{inner}, nil
	}
	// The application wraps its rocketflow.Tx, and the savepoints of the wrapper don't publish.
	deferred := &deferredTx{Tx: sp, outer: tx}
	return deferred, functionTx{deferred}, nil
}

var errEnds = errors.New("a saga's function may not end its transaction: the engine does")

// functionTx keeps a saga's function from ending the savepoint that it runs in.
type functionTx struct{ rocketflow.Tx }

func (functionTx) Commit(context.Context) error   { return errEnds }
func (functionTx) Rollback(context.Context) error { return errEnds }

// deferredTx is a savepoint that publishes in the outer transaction when it is released.
type deferredTx struct {
	pgx.Tx
	outer  rocketflow.Tx
	events []rocketflow.Payload
	after  []func()
}

func (t *deferredTx) Publish(_ context.Context, events ...rocketflow.Payload) error {
	t.events = append(t.events, events...)
	return nil
}

func (t *deferredTx) AfterCommit(fn func()) { t.after = append(t.after, fn) }

// Begin implements pgx.Tx. The inner savepoint publishes in t when it is released.
func (t *deferredTx) Begin(ctx context.Context) (pgx.Tx, error) {
	inner, err := t.Tx.Begin(ctx)
	if err != nil {
		return nil, err
	}
	return &deferredTx{Tx: inner, outer: t}, nil
}

func (t *deferredTx) Commit(ctx context.Context) error {
	if len(t.events) > 0 {
		if err := t.outer.Publish(ctx, slices.Clone(t.events)...); err != nil {
			return err
		}
	}
	if err := t.Tx.Commit(ctx); err != nil {
		return err
	}
	for _, fn := range t.after {
		t.outer.AfterCommit(fn)
	}
	return nil
}
