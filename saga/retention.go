package saga

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/internal/lazytx"
)

// retentionBatch is the number of rows that one statement deletes.
const retentionBatch = 500

// retentionLoop deletes what is older than Config.Retention: finished sagas with their history, and waiting events that
// failed or expired.
func (e *Engine) retentionLoop(ctx context.Context) {
	e.loop(ctx, func(ctx context.Context) time.Duration {
		n, err := e.deleteFinished(ctx)
		switch {
		case ctx.Err() != nil:
			return 0
		case err != nil:
			e.cfg.Logger.Warn("finished sagas could not be deleted; the next attempt follows", keyRetryAfter, e.cfg.RetentionInterval, keyError, err)
		case n > 0 && e.cfg.Listener.Expired != nil:
			e.cfg.Listener.Expired(n)
		}
		if n == retentionBatch {
			return 0
		}
		if err := e.deleteOldWaiting(ctx); err != nil && ctx.Err() == nil {
			e.cfg.Logger.Warn("old waiting events could not be deleted; the next attempt follows", keyRetryAfter, e.cfg.RetentionInterval, keyError, err)
		}
		return e.cfg.RetentionInterval
	})
}

// deleteFinished deletes one batch of finished sagas and returns their number.
func (e *Engine) deleteFinished(ctx context.Context) (n int, err error) {
	if err = lazytx.On(e.cfg.Pool).QueryRow(ctx, e.sql.Get("DeleteFinished"), e.cfg.Retention.Seconds(), int32(retentionBatch)).Scan(&n); err != nil {
		return 0, fmt.Errorf("delete finished sagas: %w", err)
	}
	return n, nil
}

// deleteOldWaiting deletes the waiting events that failed or expired longer ago than the retention, and logs each batch.
func (e *Engine) deleteOldWaiting(ctx context.Context) error {
	for {
		var saga, key, eventType, status string
		var id uuid.UUID
		var first []any // log attributes of the batch's first event
		args, dest := []any{e.cfg.Retention.Seconds(), int32(retentionBatch)}, []any{&saga, &key, &eventType, &id, &status}
		n, err := e.forEachRow(ctx, "DeleteOldWaiting", args, dest, func() error {
			if first == nil {
				first = []any{keySaga, saga, keyKey, key, keyType, eventType, keyEvent, id, keyStatus, status}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("delete waiting events: %w", err)
		}
		if n > 0 {
			e.cfg.Logger.Warn("waiting events that had failed or expired were deleted, because they were neither retried nor discarded within the retention; "+
				"the line names one of them", append(first, keyEvents, n)...)
		}
		if n < retentionBatch {
			return nil
		}
	}
}
