package outbox

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/expire"
	"github.com/rocketflow/rocketflow/internal/partition"
)

//go:embed retention.sql
var retentionSQL string

const (
	partitionsAhead   = 7 // days
	retentionInterval = time.Hour
	retentionRetry    = time.Minute // a table was in use, or Postgres is away
)

// retainer makes partitions ahead, drops those past retention in which no event is owed, and deletes old rows of default
// partitions, idle streams and old entries of the audit, all by Postgres' clock. Every process does so: whether a partition may be
// dropped is looked up in the transaction that drops it.
type retainer struct {
	outbox     *Outbox
	failures   failureStreak
	unfinished bool // this process began to expire rows, and failed
	group      background.Group
}

// startRetention fails if Postgres' time can't be read: ids of events must not get the time of a wrong clock.
func (o *Outbox) startRetention(ctx context.Context) (*retainer, error) {
	now, err := o.postgresTime(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := o.makePartitions(ctx, now); err != nil {
		o.log.Warn("partitions of the outbox can't be made and the default partitions take their rows; it is retried", keyError, err)
	}
	r := &retainer{outbox: o}
	_ = r.group.Start(ctx, func(context.Context) error {
		r.group.Go(func(ctx context.Context) { background.Loop{Clock: o.config.Clock}.Run(ctx, r.retain) })
		return nil
	})
	return r, nil
}

func (r *retainer) retain(ctx context.Context) (pause time.Duration) {
	o := r.outbox
	begin := o.config.Clock.Now()
	now, err := o.postgresTime(ctx)
	if err == nil {
		err = r.pass(ctx, now)
	}
	switch {
	case err == nil:
		r.failures.end(o.log, "retention is complete again")
		return min(retentionInterval, retentionInterval-o.config.Clock.Now().Sub(begin))
	case ctx.Err() == nil && r.failures.begins(err):
		o.log.Warn("retention is not complete, so tables grow; it is retried", keyError, err, keyRetryAfter, retentionRetry)
	}
	return retentionRetry
}

// stop cancels the statement that is running and waits for it.
func (r *retainer) stop() { _ = r.group.Stop(context.Background()) }

// maxSkew is how far this machine's clock may differ from Postgres' without a warning.
const maxSkew = time.Minute

// postgresTime returns Postgres' time, by which retention is judged, so that a process with a wrong clock drops nothing.
func (o *Outbox) postgresTime(ctx context.Context) (now time.Time, err error) {
	begin := o.config.Clock.Now()
	if err := o.db().QueryRow(ctx, o.queries.Get("Now")).Scan(&now); err != nil {
		return now, fmt.Errorf("read the time: %w", err)
	}
	end := o.config.Clock.Now()
	skewed := now.Before(begin.Add(-maxSkew)) || now.After(end.Add(maxSkew))
	if skewed && !o.skewed.Swap(true) {
		o.log.Warn("this machine's clock differs from Postgres' clock, which is used for ages and ids of events: set the machine's clock",
			keyAhead, begin.Sub(now).Round(time.Second))
	} else if !skewed {
		o.skewed.Store(false)
	}
	var skew time.Duration
	if skewed && clock.Moved(o.config.Clock) == nil { // a test that moves both clocks moves Postgres' first: that is no skew
		skew = now.Sub(begin)
	}
	o.skew.Store(int64(skew))
	return now, nil
}

// stamp corrects the time in the id of a new event if this machine's clock differs from Postgres'. With a wrong day consumers
// would take the event for too old, or remember it for too long.
func (o *Outbox) stamp(id uuid.UUID) uuid.UUID {
	if skew := time.Duration(o.skew.Load()); skew != 0 {
		return clock.StampAt(o.config.Clock.Now().Add(skew), id)
	}
	return clock.Stamp(o.config.Clock, id)
}

func (o *Outbox) table(name string) partition.Table {
	return partition.Table{Schema: o.config.Schema, Name: name}
}

func (o *Outbox) makePartitions(ctx context.Context, now time.Time) (made []string, err error) {
	for _, name := range []string{"outbox", "outbox_ack", "timeout_history"} {
		m, e := partition.Ensure(ctx, o.config.Pool, o.table(name), now, partitionsAhead)
		made, err = append(made, m...), errors.Join(err, e)
	}
	return made, err
}

// pass makes and drops partitions, and expires rows.
func (r *retainer) pass(ctx context.Context, now time.Time) error {
	o := r.outbox
	info := RetainedInfo{}
	var dropped, expired error
	info.Made, info.Err = o.makePartitions(ctx, now)
	info.Dropped, dropped = o.dropPartitions(ctx, now)
	info.Expired, expired = r.expire(ctx, now)
	info.Err = errors.Join(info.Err, dropped, expired)
	if len(info.Made) > 0 || len(info.Dropped) > 0 || info.Expired > 0 || info.Err != nil {
		o.listener.Retained(info)
	}
	return info.Err
}

// dropPartitions drops the partitions of events and of acks of a day in one transaction: without its ack an event would be
// owed again, and acks without events would stay. Those of the history of timeouts have a retention of their own.
func (o *Outbox) dropPartitions(ctx context.Context, now time.Time) (dropped []string, err error) {
	days, err := partition.Days(ctx, o.config.Pool, o.table("outbox"))
	if err != nil {
		return nil, err
	}
	ackDays, err := partition.Days(ctx, o.config.Pool, o.table("outbox_ack"))
	if err != nil {
		return nil, err
	}
	var errs []error
	drop := func(drops []partition.Day, keep func(context.Context, pgx.Tx) (bool, error)) {
		ok, err := partition.Drop(ctx, o.config.Pool, drops, keep)
		errs = append(errs, err)
		if ok {
			for _, d := range drops {
				dropped = append(dropped, d.Name)
			}
		}
	}
	withEvents := map[time.Time]bool{}
	for _, day := range days {
		withEvents[day.Start] = true
		if !isPast(o.config.Retention, day, now) {
			continue
		}
		owed, horizon, err := o.hasOwed(ctx, day)
		if errs = append(errs, err); err != nil || owed {
			continue
		}
		acks := partition.Day{Table: o.table("outbox_ack"), Name: "outbox_ack" + day.Name[len("outbox"):], Start: day.Start}
		drop([]partition.Day{day, acks}, func(ctx context.Context, tx pgx.Tx) (bool, error) { return o.hasOwedSince(ctx, tx, day, horizon) })
	}
	for _, day := range ackDays {
		if isPast(o.config.Retention, day, now) && !withEvents[day.Start] { // acks whose events are or were in the default partition
			drop([]partition.Day{day}, func(ctx context.Context, tx pgx.Tx) (needed bool, err error) {
				from, to := day.Bounds()
				return needed, tx.QueryRow(ctx, o.queries.Get("EventsBetween"), from, to).Scan(&needed)
			})
		}
	}
	historyDays, err := partition.Days(ctx, o.config.Pool, o.table("timeout_history"))
	errs = append(errs, err)
	for _, day := range historyDays {
		if isPast(o.config.TimeoutHistoryRetention, day, now) {
			drop([]partition.Day{day}, nil)
		}
	}
	return dropped, errors.Join(errs...)
}

// isPast reports whether the retention of all rows of a day is over.
func isPast(retention time.Duration, day partition.Day, now time.Time) bool {
	return day.Start.AddDate(0, 0, 1).Before(now.Add(-retention))
}

// hasOwed looks for owed events of a day without an exclusive lock, since it may take a while. It has seen the rows of all
// transactions below horizon.
func (o *Outbox) hasOwed(ctx context.Context, day partition.Day) (owed bool, horizon string, err error) {
	err = o.db().QueryRow(ctx, fmt.Sprintf(
		"SELECT EXISTS (SELECT FROM %s o WHERE NOT EXISTS (SELECT FROM %s a WHERE a.id = o.id)), pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text",
		day.Quoted(), o.quoted("outbox_ack"))).Scan(&owed, &horizon)
	if err != nil {
		return false, "", fmt.Errorf("look for owed events in %s: %w", day.Name, err)
	}
	return owed, horizon, nil
}

// hasOwedSince looks for owed events of a day that became visible after hasOwed, by its horizon. It must hold the lock that
// the drop needs, as a row that came between the two would be lost.
func (o *Outbox) hasOwedSince(ctx context.Context, tx pgx.Tx, day partition.Day, horizon string) (owed bool, err error) {
	if _, err := tx.Exec(ctx, "LOCK TABLE "+day.Quoted()+" IN ACCESS EXCLUSIVE MODE"); err != nil {
		return false, err
	}
	err = tx.QueryRow(ctx, fmt.Sprintf("SELECT EXISTS (SELECT FROM %s o WHERE o.xid >= $1::text::xid8 AND NOT EXISTS (SELECT FROM %s a WHERE a.id = o.id))",
		day.Quoted(), o.quoted("outbox_ack")), horizon).Scan(&owed)
	return owed, err
}

func (o *Outbox) quoted(table string) string {
	return pgx.Identifier{o.config.Schema, table}.Sanitize()
}

// expire deletes, in small transactions, old rows of default partitions, then idle streams, which stay while an event of
// theirs does, and old entries of the audit, of discarded events and of the history of timeouts. One process of the service does it each hour; where it fails,
// the same process tries again.
func (r *retainer) expire(ctx context.Context, now time.Time) (rows int64, err error) {
	o := r.outbox
	interval := retentionInterval * 9 / 10
	if r.unfinished {
		interval = 0
	}
	tag, err := o.db().Exec(ctx, o.queries.Get("BeginRetention"), interval.Seconds())
	if err != nil {
		return 0, fmt.Errorf("begin retention: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return 0, nil // another process did it
	}
	var errs []error
	for _, e := range []struct {
		table, query string
		after        time.Duration
	}{
		{"outbox_default", "ExpireDefaultEvents", o.config.Retention},
		{"outbox_ack_default", "ExpireDefaultAcks", o.config.Retention},
		{"stream", "ExpireStreams", o.config.StreamRetention},
		{"audit", "ExpireAudit", o.config.AuditRetention},
		{"timeout_history_default", "ExpireDefaultTimeoutHistory", o.config.TimeoutHistoryRetention},
	} {
		if e.after < 0 {
			continue // kept
		}
		n, err := expire.Walk(ctx, o.config.Pool, o.config.Schema, e.table, o.queries.Get(e.query), now.Add(-e.after).UnixMicro())
		rows += n
		errs = append(errs, err)
	}
	tag, err = o.db().Exec(ctx, o.queries.Get("ExpireDiscarded"), now.Add(-o.config.Retention))
	err = errors.Join(append(errs, err)...)
	r.unfinished = err != nil
	return rows + tag.RowsAffected(), err
}
