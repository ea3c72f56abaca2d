package handlers

import (
	"cmp"
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/valid"
)

// Retire says that a consumer of a schema (empty: rocketflow.DefaultSchema) no longer handles a type of event: what waits
// for its handler is stepped over, by any process that runs the consumer, and so is what comes. It returns how many events
// waited, and false if no such handler was registered. Retire a handler when no process has it any more, after the
// deployment that removed it can't be rolled back; whoever starts with it registers it again.
func Retire(ctx context.Context, pool *pgxpool.Pool, schema, consumer, topic, eventType string) (waited int64, retired bool, err error) {
	of := inbox.New(cmp.Or(schema, rocketflow.DefaultSchema)).Consumer(consumer)
	err = pgx.BeginTxFunc(ctx, pool, inbox.ReadCommitted, func(tx pgx.Tx) (err error) {
		waited, retired, err = of.Retire(ctx, tx, inbox.Route{Topic: topic, Type: eventType})
		return err
	})
	if err != nil {
		return 0, false, fmt.Errorf("retire handler of %s for %s %s: %w", consumer, topic, eventType, err)
	}
	return waited, retired, nil
}

// ResetPosition sets how far a consumer of a schema (empty: rocketflow.DefaultSchema) is in a stream: the events after
// that sequence run when they come, or come again; those up to it count as handled, and if they are parked become dead
// letters when they are due. It is for a stream whose position a mistaken or forged event has moved. false: the consumer
// doesn't know the stream.
func ResetPosition(ctx context.Context, pool *pgxpool.Pool, schema, consumer string, s rocketflow.Stream, sequence int64) (bool, error) {
	if sequence < 0 {
		return false, valid.Fieldf("sequence", "%d: want 0 or more", sequence)
	}
	of := inbox.New(cmp.Or(schema, rocketflow.DefaultSchema)).Consumer(consumer)
	found := false
	err := pgx.BeginTxFunc(ctx, pool, inbox.ReadCommitted, func(tx pgx.Tx) (err error) {
		found, err = of.ResetPosition(ctx, tx, s, sequence)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("reset position of %s in %v: %w", consumer, s, err)
	}
	return found, nil
}
