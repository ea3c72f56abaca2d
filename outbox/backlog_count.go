package outbox

import (
	"context"
	"fmt"
	"time"
)

// backlogCount counts the owed events during a pass of the sweep and writes the count to the sweep's row for the other
// processes. If all owed events fit in a page, the page is the count. Otherwise the events that have come since the last
// count are added to it and those that the sweep sends are subtracted. Acknowledgements of other processes aren't noticed by
// this, so all events are counted anew from time to time, which takes at most a twentieth of the time.
type backlogCount struct {
	outbox *Outbox
	state  sweepState
	sent   int       // events sent, or found to be rejected, since the last count
	last   time.Time // of the last count; zero: not in this pass
}

const (
	countInterval = time.Second // in a pass that takes long
	countShare    = 20          // a full count is followed by at least so many times its duration without one
)

// page is called with each page before it is sent. all reports that the page holds all owed events.
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
	if _, err := o.db().Exec(ctx, o.queries.Get("WriteCount"), now.owed, now.oldest.Seconds(), before.now.String(), recount.Seconds()); err != nil {
		return fmt.Errorf("write the count of owed events: %w", err)
	}
	return nil
}

func (c *backlogCount) count(ctx context.Context, from sweepProgress, limit int64) (n int64, err error) {
	if err := c.outbox.db().QueryRow(ctx, c.outbox.queries.Get("CountOwed"), from.seen, from.recheck, limit).Scan(&n); err != nil {
		return 0, fmt.Errorf("count owed events: %w", err)
	}
	return min(n, limit), nil
}
