package handlers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/internal/expire"
	"github.com/rocketflow/rocketflow/internal/partition"
)

const (
	keepEvery = 10 * time.Minute
	// keepMargin is added to a retention before anything is forgotten: two processes' clocks differ.
	keepMargin = time.Hour
	keepRows   = 1000 // deleted at a time
	daysAhead  = 2    // for which the inbox has partitions
)

// keep makes the inbox's partitions ahead and forgets what is older than the retentions, until ctx ends.
func (r *Router) keep(ctx context.Context) {
	for {
		next, giveUp := r.cfg.Clock.After(keepEvery)
		if err := r.tidy(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Logger.Warn("can't tidy up", keyError, err)
		}
		select {
		case <-next:
		case <-ctx.Done():
			giveUp()
			return
		}
	}
}

func (r *Router) inbox() partition.Table {
	return partition.Table{Schema: r.cfg.Schema, Name: "inbox"}
}

// makePartitions runs before the first event, too: making today's under an insert makes that fail.
func (r *Router) makePartitions(ctx context.Context) error {
	_, err := partition.Ensure(ctx, r.cfg.Pool, r.inbox(), r.cfg.Clock.Now(), daysAhead)
	return err
}

func (r *Router) tidy(ctx context.Context) error {
	errs := []error{r.makePartitions(ctx)}
	days, err := partition.Days(ctx, r.cfg.Pool, r.inbox())
	errs = append(errs, err)
	for _, day := range days {
		if end := day.Start.AddDate(0, 0, 1); r.cfg.Clock.Now().Sub(end) > r.cfg.InboxRetention+keepMargin {
			_, err := partition.Drop(ctx, r.cfg.Pool, []partition.Day{day}, nil)
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, r.forget(ctx))...)
}

// forget deletes, in small transactions, what no partition covers. One process at a time does.
func (r *Router) forget(ctx context.Context) error {
	for more := true; more; {
		more = false
		err := pgx.BeginFunc(ctx, r.cfg.Pool, func(tx pgx.Tx) error {
			var mine bool
			if err := tx.QueryRow(ctx, r.sql.Get("TryKeeper"), r.cfg.Schema).Scan(&mine); err != nil || !mine {
				return err
			}
			rows, err := tx.Exec(ctx, r.sql.Get("ExpireInbox"), (r.cfg.InboxRetention + keepMargin).Seconds(), keepRows)
			more = rows.RowsAffected() == keepRows
			return err
		})
		if err != nil {
			return fmt.Errorf("forget old events: %w", err)
		}
	}
	oldest := r.cfg.Clock.Now().Add(-r.cfg.PositionRetention - keepMargin).UnixMicro()
	if _, err := expire.Walk(ctx, r.cfg.Pool, r.cfg.Schema, "position", r.sql.Get("ExpirePositions"), oldest); err != nil {
		return fmt.Errorf("forget old positions: %w", err)
	}
	return nil
}
