package handlers

import (
	"context"
	"errors"
	"time"

	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/lazytx"
	"github.com/rocketflow/rocketflow/internal/partition"
)

const (
	retentionEvery = 10 * time.Minute
	// retentionMargin is added to a retention before rows are deleted.
	retentionMargin = time.Hour
	daysAhead       = 2 // for which the inbox has partitions
)

// runRetention makes the inbox's partitions ahead and deletes rows that are older than the consumers' retentions, until ctx
// ends. Ages are judged by Postgres' clock, and retentions are rows: a process with a wrong clock, or with shorter
// retentions, deletes nothing that others need.
func (r *Router) runRetention(ctx context.Context) {
	background.Loop{Clock: r.cfg.Clock}.Every(ctx, retentionEvery, func(ctx context.Context) {
		if err := r.retain(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Logger.Warn("retention of inbox and positions is not complete; it is tried again in 10 minutes", keyError, err)
		}
	})
}

func (r *Router) inboxTable() partition.Table {
	return partition.Table{Schema: r.cfg.Schema, Name: "inbox"}
}

// postgresNow reads Postgres' clock.
func (r *Router) postgresNow(ctx context.Context) (now time.Time, err error) {
	if now, err = r.store.Now(ctx, lazytx.On(r.cfg.Pool)); err != nil {
		return now, err
	}
	return now, nil
}

// makePartitions makes the inbox's partitions ahead. It must run before the first event is handled: an insert fails while the
// partition of its day is being made.
func (r *Router) makePartitions(ctx context.Context) error {
	now, err := r.postgresNow(ctx)
	if err != nil {
		return err
	}
	_, err = partition.Ensure(ctx, r.cfg.Pool, r.inboxTable(), now, daysAhead)
	return err
}

func (r *Router) retain(ctx context.Context) error {
	now, err := r.postgresNow(ctx)
	if err != nil {
		return err
	}
	var errs []error
	if _, err := partition.Ensure(ctx, r.cfg.Pool, r.inboxTable(), now, daysAhead); err != nil {
		errs = append(errs, err)
	}
	longest, err := r.store.Retention(ctx, lazytx.On(r.cfg.Pool), r.cfg.InboxRetention)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	retention := longest + retentionMargin
	days, err := partition.Days(ctx, r.cfg.Pool, r.inboxTable())
	errs = append(errs, err)
	for _, day := range days {
		if end := day.Start.AddDate(0, 0, 1); now.Sub(end) > retention {
			_, err := partition.Drop(ctx, r.cfg.Pool, []partition.Day{day}, nil)
			errs = append(errs, err)
		}
	}
	if err := r.store.ExpireInbox(ctx, r.cfg.Pool, retention); err != nil {
		return errors.Join(append(errs, err)...)
	}
	errs = append(errs, r.store.ExpireOriginals(ctx, r.cfg.Pool, retention))
	return errors.Join(append(errs, r.store.ExpirePositions(ctx, r.cfg.Pool, r.cfg.Schema, retentionMargin))...)
}
