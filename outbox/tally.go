package outbox

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// tally counts what is owed while a sweep makes its pass, and tells the other processes. Where all fits in a page, the
// page is the count. Else what has come since the last count is added to it, and what the sweep sends is subtracted;
// from time to time, never more than a twentieth of the time, all is counted, since what other processes ack isn't known.
type tally struct {
	outbox *Outbox
	sight  sight
	sent   int       // or found to be rejected, since the last count
	last   time.Time // when that was; zero: not in this pass
}

const (
	countInterval = time.Second // in a pass that takes long
	countShare    = 20          // a count of all is followed by so many times its duration without one
)

// page is called with each page before it is sent. whole tells that it is all that is owed.
func (t *tally) page(ctx context.Context, page []owed, whole bool) error {
	if !t.last.IsZero() && time.Since(t.last) < countInterval {
		return nil
	}
	o := t.outbox
	if !t.last.IsZero() {
		v, err := o.look(ctx)
		if err != nil {
			return err
		}
		t.sight = v
	}
	v, limit := t.sight, o.gauge.countLimit()
	now := v
	now.oldest = 0
	for _, row := range page {
		now.oldest = max(now.oldest, row.age)
	}
	var recount time.Duration
	switch {
	case whole:
		now.owed = int64(len(page))
	case v.recount:
		begin := time.Now()
		n, err := t.count(ctx, v.known, limit)
		if err != nil {
			return err
		}
		now.owed, recount = n, max(countShare*time.Since(begin), countInterval)
	default:
		n, err := t.count(ctx, v.since(), limit)
		if err != nil {
			return err
		}
		now.owed = min(v.owed+n, limit)
		if v.owed < limit { // else it is more than that
			now.owed = max(now.owed-int64(t.sent), int64(len(page)))
		}
	}
	t.sent, t.last = 0, time.Now()
	o.updateGauge(now)
	if now.owed == v.owed && (v.owed == 0 || (now.oldest-v.oldest).Abs() < countInterval) && recount == 0 {
		return nil
	}
	if _, err := o.config.Pool.Exec(ctx, o.queries.Get("Counted"), now.owed, now.oldest.Seconds(), v.now.String(), recount.Seconds()); err != nil {
		return fmt.Errorf("write down what is owed: %w", err)
	}
	return nil
}

func (t *tally) count(ctx context.Context, k knowledge, limit int64) (n int64, err error) {
	if err := t.outbox.config.Pool.QueryRow(ctx, t.outbox.queries.Get("CountOwed"), k.seen, k.again, limit).Scan(&n); err != nil {
		return 0, fmt.Errorf("count owed events: %w", err)
	}
	return min(n, limit), nil
}

// since is where to look for what the last count has not seen.
func (v sight) since() knowledge {
	again := slices.Clone(v.counted.xip)
	for _, x := range v.known.again {
		if x >= v.counted.xmax {
			again = append(again, x)
		}
	}
	slices.Sort(again)
	return knowledge{max(v.known.seen, v.counted.xmax), slices.Compact(again)}
}
