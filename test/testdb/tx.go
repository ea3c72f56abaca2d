package testdb

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
)

// Tx is a rocketflow.Tx without an outbox: it keeps what is published.
type Tx struct {
	pgx.Tx
	Published []rocketflow.Payload
	After     []func() // what AfterCommit was given; Within calls it
}

// Publish keeps payloads in Published.
func (t *Tx) Publish(_ context.Context, payloads ...rocketflow.Payload) error {
	t.Published = append(t.Published, payloads...)
	return nil
}

// AfterCommit keeps fn in After.
func (t *Tx) AfterCommit(fn func()) { t.After = append(t.After, fn) }

// Within runs fn in a transaction, and again after a serialization failure or a deadlock. Then it calls the functions of AfterCommit.
func Within(ctx context.Context, pool *pgxpool.Pool, options pgx.TxOptions, fn func(tx *Tx) error) error {
	return Retry(func() error {
		inner, err := pool.BeginTx(ctx, options)
		if err != nil {
			return err
		}
		tx := &Tx{Tx: inner}
		if err := fn(tx); err != nil {
			return errors.Join(err, inner.Rollback(ctx))
		}
		if err := inner.Commit(ctx); err != nil {
			return err
		}
		for _, fn := range tx.After {
			fn()
		}
		return nil
	})
}
