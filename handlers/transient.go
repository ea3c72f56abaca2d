package handlers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/lazytx"
	"github.com/rocketflow/rocketflow/internal/pgerror"
)

// This file is the policy for transient errors: those of Postgres and of the outbox, not of a handler.

// maxConflicts is how often a transaction is run again after a deadlock, or after a connection was lost while Postgres
// responds on others, before the error counts as the event's. A transaction of several events isn't run again after a
// conflict: its events run in smaller transactions, which hold fewer locks.
const maxConflicts = 5

// inTransaction runs fn in a transaction that publishes nothing.
func (c *consumer) inTransaction(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx) error) error {
	return c.withRetries(ctx, func(ctx context.Context, fn func(context.Context, pgx.Tx) error) error {
		return pgx.BeginTxFunc(ctx, c.cfg.Pool, inbox.ReadCommitted, func(tx pgx.Tx) error { return fn(ctx, tx) })
	}, maxConflicts, fn)
}

// untilCommitted is inTransaction for work that no other process could do instead: it is repeated until it succeeds or ctx
// ends. When Postgres can't store what fn stores, replace is called, once, after which fn must store something else.
func (c *consumer) untilCommitted(ctx context.Context, replace func(why error), fn func(ctx context.Context, tx pgx.Tx) error) error {
	for try := 0; ; try++ {
		err := c.inTransaction(ctx, fn)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if replace != nil && pgerror.IsUnstorable(err) {
			c.cfg.Logger.Error("Postgres can't store an event or its outcome as it is; what it can store takes its place", keyConsumer, c.name, keyError, logText(err))
			replace(err)
			replace = nil
			continue
		}
		c.laneStall.begin(fmt.Errorf("settle an event: %w", err), backoff(try))
		if err := c.sleep(ctx, backoff(try)); err != nil {
			return err
		}
	}
}

// inPublishingTransaction runs fn, which calls handlers, in a transaction that publishes.
func (c *consumer) inPublishingTransaction(ctx context.Context, conflicts int, fn func(ctx context.Context, tx rocketflow.Tx) error) error {
	return c.withRetries(ctx, func(ctx context.Context, fn func(context.Context, pgx.Tx) error) error {
		return lazytx.Within(ctx, c.cfg.Transactor, func(ctx context.Context, tx rocketflow.Tx) error { return fn(ctx, tx) })
	}, conflicts, func(ctx context.Context, tx pgx.Tx) error { return fn(ctx, tx.(rocketflow.Tx)) })
}

type within func(ctx context.Context, fn func(context.Context, pgx.Tx) error) error

// withRetries runs fn in transactions until one commits or fails with an error that isn't transient. It waits for Postgres
// until ctx ends, and runs fn again after at most so many conflicts. An earlier run may have committed when fn runs again,
// because Postgres' response was lost.
func (c *consumer) withRetries(ctx context.Context, begin within, conflicts int, fn func(context.Context, pgx.Tx) error) error {
	for try := 0; ; try++ {
		entered, lost := false, false
		err := begin(ctx, func(ctx context.Context, tx pgx.Tx) error {
			entered = true
			err := fn(ctx, tx)
			lost = err != nil && isClosed(tx)
			return err
		})
		switch {
		case err == nil:
			c.laneStall.end()
			return nil
		case ctx.Err() != nil:
			return err
		case entered && !c.isTransient(ctx, err, lost, try, conflicts):
			return err
		}
		wait := backoff(try)
		c.laneStall.begin(err, wait)
		if err := c.sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// isTransient reports whether err, of a transaction that had begun, comes from Postgres or the outbox and not from the event,
// so that the transaction is to be run again.
func (c *consumer) isTransient(ctx context.Context, err error, lost bool, try, conflicts int) bool {
	var own *handlerError
	var pgErr *pgconn.PgError
	fromHandler, fromPostgres := errors.As(err, &own), errors.As(err, &pgErr)
	switch {
	case errors.Is(err, errPaused):
		return false
	case errors.Is(err, rocketflow.ErrBackpressure):
		return true
	case fromHandler && own.late: // the passed deadline closed the connection
		return false
	case isConflict(err): // first, because it may be the cause of ErrTxCommitRollback
		return try < conflicts
	case errors.Is(err, pgx.ErrTxCommitRollback), isRefused(err):
		return false
	case lost: // perhaps by the handler, which terminated its backend or left it idle for too long
	case fromHandler, fromPostgres && !pgerror.IsUnavailable(err):
		return false
	}
	if try < maxConflicts {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return c.cfg.Pool.Ping(ctx) != nil
}

// isConflict reports whether an error is a conflict with another transaction: one of Postgres' conflicts, or a row for a
// partition that was made at that moment.
func isConflict(err error) bool { return pgerror.IsConflict(err) || pgerror.IsOutsidePartition(err) }

// backoff returns the wait before another try.
func backoff(try int) time.Duration {
	wait := min(20*time.Millisecond<<min(try, 8), 5*time.Second)
	return wait/2 + rand.N(wait/2) //nolint:gosec // jitter needs no secrecy
}

// sleep returns ctx's error if ctx ends before.
func (c *consumer) sleep(ctx context.Context, d time.Duration) error {
	if !background.Sleep(ctx, c.cfg.Clock, d) {
		return context.Cause(ctx)
	}
	return nil
}

// isRefused reports whether the outbox refused the events that a handler published, so that they may be accepted later.
func isRefused(err error) bool {
	var field *rocketflow.FieldError
	return errors.As(err, &field) || errors.Is(err, broker.ErrRejected)
}
