package outbox

import (
	"context"
	"fmt"
	"time"
)

// backlogCount counts what is owed while a sweep makes its pass, and writes it down for the other processes. If all fits in
// a page, the page is the count. Else what has come since the last count is added to it, and what the sweep sends is
// subtracted. From time to time, never more than a twentieth of the time, everything is counted, since what other processes
// acknowledge isn't known.
type backlogCount struct {
	outbox *Outbox
	state  sweepState
	sent   int       // or found to be rejected, since the last count
	last   time.Time // when that was; zero: not in this pass
}

const (
	countInterval = time.Second // in a pass that takes long
	countShare    = 20          // a count of everything is followed by so many times its duration without one
)

// page is called with each page before it is sent. all reports that it is everything that is owed.
func (c *backlogCount) page(ctx context.Context, page []owedRow, all bool) error {
	if !c.last.IsZero() && time.Since(c.last) < countInterval {
		return nil
	}
	o := c.outbox
	if !c.last.IsZero() {
		state, err := o.readSweepState(ctx)
		if err != nil {
			return err
		}
		c.state = state
	}
	before, limit := c.state, o.backlog.countLimit()
	now := before
	now.oldest = 0
	for _, row := range page {
		now.oldest = max(now.oldest, row.age)
	}
	var recount time.Duration
	switch {
	case all:
		now.owed = int64(len(page))
	case before.recount:
		begin := time.Now()
		n, err := c.count(ctx, before.progress, limit)
		if err != nil {
			return err
		}
		now.owed, recount = n, max(countShare*time.Since(begin), countInterval)
	default:
		n, err := c.count(ctx, before.sinceCount(), limit)
		if err != nil {
			return err
		}
		now.owed = min(before.owed+n, limit)
		if before.owed < limit { // else more is owed than was counted
			now.owed = max(now.owed-int64(c.sent), int64(len(page)))
		}
	}
	c.sent, c.last = 0, time.Now()
	o.updateBacklog(now)
	if now.owed == before.owed && (before.owed == 0 || (now.oldest-before.oldest).Abs() < countInterval) && recount == 0 {
		return nil
	}
	if _, err := o.config.Pool.Exec(ctx, o.queries.Get("WriteCount"), now.owed, now.oldest.Seconds(), before.now.String(), recount.Seconds()); err != nil {
		return fmt.Errorf("write the count of owed events: %w", err)
	}
	return nil
}

func (c *backlogCount) count(ctx context.Context, from sweepProgress, limit int64) (n int64, err error) {
	if err := c.outbox.config.Pool.QueryRow(ctx, c.outbox.queries.Get("CountOwed"), from.seen, from.recheck, limit).Scan(&n); err != nil {
		return 0, fmt.Errorf("count owed events: %w", err)
	}
	return min(n, limit), nil
}
