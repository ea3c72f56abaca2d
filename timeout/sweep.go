package timeout

import (
	"context"
	"time"

	"github.com/rocketflow/rocketflow/internal/background"
)

const (
	// minSweepPause is the shortest pause between two sweeps that don't find a full page: timeouts that come due one soon after
	// the other are claimed together.
	minSweepPause = 20 * time.Millisecond
	// lookInterval is the longest pause between two sweeps of the lease's holder where timeouts fire from Postgres. It bounds
	// how late a timeout is that another process armed shortly before its due time.
	lookInterval = 200 * time.Millisecond
)

// sweeper sweeps in one goroutine of a Scheduler: at least every SweepInterval, when the next known timeout is due, and
// without a pause as long as it finds full pages.
type sweeper struct {
	*Scheduler
	lease *sweepLease
	full  fullSweeps
}

// runSweeps sweeps until stopping ends.
func (s *Scheduler) runSweeps(stopping, requests context.Context) {
	w := sweeper{Scheduler: s, lease: s.newSweepLease()}
	defer w.lease.release()
	background.Loop{Clock: s.cfg.Clock, Wake: s.next.wake}.Run(stopping, func(context.Context) time.Duration {
		w.lease.renew(requests)
		if rest := s.next.due(s.cfg.Clock.Now(), w.interval()); rest > 0 {
			return rest
		}
		if err := w.sweep(stopping, requests); err != nil && requests.Err() == nil {
			s.cfg.Logger.Warn("the sweep of timeouts failed; timeouts that are due wait for a later sweep", keyError, err, keyRetryAfter, s.cfg.SweepInterval)
		}
		return s.next.rest(s.cfg.Clock.Now())
	})
}

// interval returns the longest pause between two sweeps.
func (w *sweeper) interval() time.Duration {
	if w.lease.held && (w.horizon() == 0 || w.rejections.hasAny(w.cfg.Clock.Now())) {
		return min(w.cfg.SweepInterval, lookInterval)
	}
	return w.cfg.SweepInterval
}

// sweep claims one page of timeouts, gives them to the broker, and plans the next sweep. An error doesn't mean that nothing was
// given to the broker.
func (w *sweeper) sweep(stopping, requests context.Context) error {
	now := w.cfg.Clock.Now() // before the look: if the clock is moved after it, what is planned is due at once
	var from *time.Time
	if w.lease.held {
		from = w.full.from(now)
	}
	page, err := w.claimPage(requests, from, w.lease.held)
	if err != nil {
		w.next.notBefore(w.cfg.Clock.Now().Add(w.cfg.SweepInterval))
		return err
	}
	if w.lease.held && from == nil && !page.full {
		w.full.done(now, page, w.cfg.SweepInterval, w.cfg.SweepGrace)
	}
	responded, err := w.deliver(stopping, requests, page)
	switch {
	case !responded && page.full:
		w.next.notBefore(w.cfg.Clock.Now().Add(w.cfg.SweepInterval))
	case !responded: // perhaps one broker of several: what goes to the others doesn't wait long
		w.next.notBefore(w.cfg.Clock.Now().Add(min(w.cfg.SweepInterval, lookInterval)))
	case page.full:
		w.next.now()
	case page.hasNext:
		w.next.by(now.Add(page.nextIn))
	}
	return err
}

// sweepAt makes this process sweep when a timeout is due, if the holder of the lease may not look for it before that. due is a
// time of Config.Clock.
func (s *Scheduler) sweepAt(due time.Time) {
	if due.Sub(s.cfg.Clock.Now()) <= s.cfg.SweepInterval {
		s.next.by(due)
	}
}
