package service

import (
	"context"
	"fmt"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
)

// effectsTable has no unique key on purpose: an event that took effect twice must be visible in it.
const effectsTable = `
CREATE TABLE IF NOT EXISTS effects (
    n           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- the order of the effects
    consumer    text        NOT NULL,
    event_id    uuid        NOT NULL,
    type        text        NOT NULL,
    order_id    text        NOT NULL,
    sequence    bigint      NOT NULL, -- 0: a timeout
    recorded_at timestamptz NOT NULL,
    handled_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);`

// Effects is middleware that inserts a row for each event, in the transaction that handles it. The demo verifies by these
// rows that each event had its effect once and in order.
func Effects(next rocketflow.HandlerFunc) rocketflow.HandlerFunc {
	return func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		if err := next(ctx, tx, e); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO effects (consumer, event_id, type, order_id, sequence, recorded_at)
			VALUES ($1, $2, $3, $4, $5, $6)`, handlers.Consumer(ctx), e.ID, e.Type, e.Subject, e.Sequence, e.Time)
		if err != nil {
			return fmt.Errorf("record effect: %w", err)
		}
		return nil
	}
}
