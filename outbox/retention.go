package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/internal/partition"
)

const (
	partitionsAhead   = 7 // days
	retentionInterval = time.Hour
)

// retainer makes partitions ahead and drops those past retention in which nothing is owed. Every process does; locks
// keep them out of each other's way.
type retainer struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func (o *Outbox) startRetention(ctx context.Context) *retainer {
	if _, err := o.makePartitions(ctx, o.config.Clock.Now()); err != nil {
		o.log.Warn("can't make the outbox' partitions; its default ones take their rows", "error", err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := &retainer{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		for {
			next, giveUp := o.config.Clock.After(retentionInterval)
			if err := o.retain(ctx, o.config.Clock.Now()); err != nil && ctx.Err() == nil {
				o.log.Warn("retention not complete; next try in an hour", "error", err)
			}
			select {
			case <-next:
			case <-ctx.Done():
				giveUp()
				return
			}
		}
	}()
	return r
}

func (r *retainer) stop() {
	r.cancel()
	<-r.done
}

func (o *Outbox) table(name string) partition.Table {
	return partition.Table{Schema: o.config.Schema, Name: name}
}

func (o *Outbox) makePartitions(ctx context.Context, now time.Time) (made []string, err error) {
	for _, name := range []string{"outbox", "outbox_ack"} {
		m, e := partition.Ensure(ctx, o.config.Pool, o.table(name), now, partitionsAhead)
		made, err = append(made, m...), errors.Join(err, e)
	}
	return made, err
}

func (o *Outbox) retain(ctx context.Context, now time.Time) error {
	info := RetainedInfo{}
	info.Made, info.Err = o.makePartitions(ctx, now)
	dropped, err := o.dropPartitions(ctx, now)
	info.Dropped, info.Err = dropped, errors.Join(info.Err, err)
	if len(info.Made) > 0 || len(info.Dropped) > 0 || info.Err != nil {
		o.listener.Retained(info)
	}
	return info.Err
}

// dropPartitions drops a day's events together with their acks: without its ack an event would be owed again, and acks
// without events would stay.
func (o *Outbox) dropPartitions(ctx context.Context, now time.Time) (dropped []string, err error) {
	days, err := partition.Days(ctx, o.config.Pool, o.table("outbox"))
	if err != nil {
		return nil, err
	}
	for _, day := range days {
		if !day.Start.AddDate(0, 0, 1).Before(now.Add(-o.config.Retention)) {
			break
		}
		acks := partition.Day{Table: o.table("outbox_ack"), Name: "outbox_ack" + day.Name[len("outbox"):], Start: day.Start}
		ok, err := partition.Drop(ctx, o.config.Pool, []partition.Day{day, acks}, func(ctx context.Context, tx pgx.Tx) (owed bool, err error) {
			// Looked at under the lock that the drop needs: a row that comes between would be lost.
			if _, err := tx.Exec(ctx, "LOCK TABLE "+day.Quoted()+" IN ACCESS EXCLUSIVE MODE"); err != nil {
				return false, err
			}
			err = tx.QueryRow(ctx, fmt.Sprintf("SELECT EXISTS (SELECT FROM %s o WHERE NOT EXISTS (SELECT FROM %s.outbox_ack a WHERE a.id = o.id))",
				day.Quoted(), pgx.Identifier{o.config.Schema}.Sanitize())).Scan(&owed)
			return owed, err
		})
		if err != nil {
			return dropped, err
		}
		if ok {
			dropped = append(dropped, day.Name, acks.Name)
		}
	}
	return dropped, nil
}
