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
	retentionEvery = 10 * time.Minute
	// retentionMargin is added to a retention before anything is forgotten.
	retentionMargin = time.Hour
	retentionRows   = 1000 // deleted at a time
	daysAhead       = 2    // for which the inbox has partitions
)

// keepRetention makes the inbox's partitions ahead and forgets what is older than the consumers' retentions, until ctx
// ends. Ages are judged by Postgres' clock, and retentions are rows: a process with a wrong clock, or with short
// retentions of its own, takes nothing from others.
func (r *Router) keepRetention(ctx context.Context) {
	for {
		next, giveUp := r.cfg.Clock.After(retentionEvery)
		if err := r.retain(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Logger.Warn("retention of inbox and positions is not complete; it is tried again in 10 minutes", keyError, err)
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

// postgresNow reads Postgres' clock.
func (r *Router) postgresNow(ctx context.Context) (now time.Time, err error) {
	if err := r.cfg.Pool.QueryRow(ctx, r.sql.Get("Now")).Scan(&now); err != nil {
		return now, fmt.Errorf("read Postgres' clock: %w", err)
	}
	return now, nil
}

// makePartitions runs before the first event, too: making today's under an insert makes that fail.
func (r *Router) makePartitions(ctx context.Context) error {
	now, err := r.postgresNow(ctx)
	if err != nil {
		return err
	}
	_, err = partition.Ensure(ctx, r.cfg.Pool, r.inbox(), now, daysAhead)
	return err
}

func (r *Router) retain(ctx context.Context) error {
	now, err := r.postgresNow(ctx)
	if err != nil {
		return err
	}
	var errs []error
	if _, err := partition.Ensure(ctx, r.cfg.Pool, r.inbox(), now, daysAhead); err != nil {
		errs = append(errs, err)
	}
	var seconds float64
	if err := r.cfg.Pool.QueryRow(ctx, r.sql.Get("Retention"), r.cfg.InboxRetention.Seconds()).Scan(&seconds); err != nil {
		return errors.Join(append(errs, fmt.Errorf("read retention: %w", err))...)
	}
	inbox := time.Duration(seconds*float64(time.Second)) + retentionMargin
	days, err := partition.Days(ctx, r.cfg.Pool, r.inbox())
	errs = append(errs, err)
	for _, day := range days {
		if end := day.Start.AddDate(0, 0, 1); now.Sub(end) > inbox {
			_, err := partition.Drop(ctx, r.cfg.Pool, []partition.Day{day}, nil)
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, r.expireRows(ctx, inbox))...)
}

// expireRows deletes, in small transactions, what no partition covers. Several processes may do so at once.
func (r *Router) expireRows(ctx context.Context, inbox time.Duration) error {
	for more := true; more; {
		err := pgx.BeginTxFunc(ctx, r.cfg.Pool, readCommitted, func(tx pgx.Tx) error {
			rows, err := tx.Exec(ctx, r.sql.Get("ExpireInbox"), inbox.Seconds(), int64(retentionRows))
			more = rows.RowsAffected() == retentionRows
			return err
		})
		if err != nil {
			return fmt.Errorf("forget old events: %w", err)
		}
	}
	if _, err := expire.Walk(ctx, r.cfg.Pool, r.cfg.Schema, "position", r.sql.Get("ExpirePositions"), retentionMargin.Seconds()); err != nil {
		return fmt.Errorf("forget old positions: %w", err)
	}
	return nil
}
