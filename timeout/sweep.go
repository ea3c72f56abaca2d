package timeout

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/stored"
	"github.com/rocketflow/rocketflow/internal/wire"
)

const (
	// minSweepPause is the shortest pause between two sweeps that don't find a full page: timeouts that come due one soon after
	// the other are claimed together.
	minSweepPause = 20 * time.Millisecond
	// lookInterval is the longest pause between two sweeps of the lease's holder where timeouts fire from Postgres. It bounds
	// how late a timeout is that another process armed shortly before its due time.
	lookInterval = 200 * time.Millisecond
)

// sweepLoop sweeps until stopping ends: at least every SweepInterval, when a timeout comes due that this process knows of, and
// without a pause as long as a sweep finds a full page.
func (s *Scheduler) sweepLoop(stopping, requests context.Context) {
	lease := s.newSweepLease()
	defer lease.release()
	background.Loop{Clock: s.cfg.Clock, Wake: s.next.wake}.Run(stopping, func(context.Context) time.Duration {
		now := s.cfg.Clock.Now()
		if rest := s.next.due(now, s.sweepInterval(lease.isHeld(requests))); rest > 0 {
			return rest
		}
		found, err := s.sweep(stopping, requests, lease.held)
		if err != nil && requests.Err() == nil {
			s.cfg.Logger.Warn("the sweep of timeouts failed; timeouts that are due wait for a later sweep", keyError, err, keyAfter, s.cfg.SweepInterval)
		}
		switch {
		case found.nothingSent:
			s.next.notBefore(s.cfg.Clock.Now().Add(s.cfg.SweepInterval))
		case found.fullPage:
			s.next.now()
		case found.hasNext:
			s.next.by(now.Add(found.nextIn)) // from before the look: the clock may have been moved after it
		}
		return s.next.rest(s.cfg.Clock.Now())
	})
}

// sweepInterval returns the longest pause between two sweeps.
func (s *Scheduler) sweepInterval(holdsLease bool) time.Duration {
	if holdsLease && (s.horizon() == 0 || s.rejections.hasAny(s.cfg.Clock.Now())) {
		return min(s.cfg.SweepInterval, lookInterval)
	}
	return s.cfg.SweepInterval
}

// sweepAt makes this process sweep when a timeout is due, if the holder of the lease may not look for it before that. due is a
// time of Config.Clock.
func (s *Scheduler) sweepAt(due time.Time) {
	if due.Sub(s.cfg.Clock.Now()) <= s.cfg.SweepInterval {
		s.next.by(due)
	}
}

// errNotTried is the error of a timeout that the sweep did not give to the broker, because the broker failed for another
// timeout of the page or because the scheduler stops.
var errNotTried = errors.New("not tried")

// swept is what one sweep found.
type swept struct {
	fullPage    bool // there may be more to sweep
	nothingSent bool // the database or the broker failed: the next sweep would fail too
	hasNext     bool // whether nextIn is known
	nextIn      time.Duration
}

// sweep claims one page of timeouts and gives them to the broker, outside of any transaction. look makes it look for the time
// of the next timeout, too. An error doesn't mean that nothing was sent.
func (s *Scheduler) sweep(stopping, requests context.Context, look bool) (swept, error) {
	page, err := s.claimPage(requests, look)
	if err != nil {
		return swept{nothingSent: true}, err
	}
	var results pageResults
	var due, soon []handOver
	for _, h := range page.rows {
		switch ahead := h.dueAt.Sub(page.now); {
		case ahead <= 0:
			due = append(due, h)
		case ahead > page.horizon:
			// Armed by a process with a longer horizon; the claim has postponed it until it is within this one's.
		case s.horizonOf(h.event.Topic) == 0:
			results.refused = append(results.refused, h)
		default:
			soon = append(soon, h)
		}
	}
	var both sync.WaitGroup
	both.Go(func() { s.sendDue(stopping, requests, due, page.now, &results) })
	both.Go(func() { s.scheduleSoon(stopping, requests, soon, page.now, &results) })
	both.Wait()
	if err := s.recordResults(requests, &results); err != nil {
		return swept{nothingSent: true}, err
	}
	found := swept{fullPage: len(page.rows) == s.cfg.SweepPage, nothingSent: results.noneResponded(), hasNext: page.hasNext, nextIn: page.nextIn}
	if results.failure != nil {
		return found, fmt.Errorf("%d of %d timeouts not handed over: %w", len(results.failed)+len(results.rejected), len(page.rows), results.failure)
	}
	return found, nil
}

// pageResults are the results of giving the timeouts of one page to the broker.
type pageResults struct {
	mu        sync.Mutex
	sent      int         // events
	scheduled []timeoutID // the broker has a timer
	refused   []handOver  // the broker rejects the timer
	rejected  []timeoutID // the broker rejected the event
	failed    []timeoutID // the broker failed, or the timeout was not tried
	failure   error       // one of those that were tried; nil if none failed
}

// addEvent adds the result of sending the event of a timeout.
func (r *pageResults) addEvent(h handOver, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.sent++
	case errors.Is(err, broker.ErrRejected):
		r.rejected, r.failure = append(r.rejected, h.id()), err
	default:
		r.fail(h, err)
	}
}

// addTimer adds the result of scheduling a timeout.
func (r *pageResults) addTimer(h handOver, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.scheduled = append(r.scheduled, h.id())
	case errors.Is(err, broker.ErrRejected):
		r.refused = append(r.refused, h)
	default:
		r.fail(h, err)
	}
}

// fail adds a timeout that the broker failed for, or that was not tried. r.mu is held.
func (r *pageResults) fail(h handOver, err error) {
	r.failed = append(r.failed, h.id())
	if !errors.Is(err, errNotTried) {
		r.failure = err
	}
}

// noneResponded reports whether the broker has failed and has not responded for any timeout.
func (r *pageResults) noneResponded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.failed) > 0 && r.sent+len(r.scheduled)+len(r.refused)+len(r.rejected) == 0
}

// recordResults writes down what became of a page.
func (s *Scheduler) recordResults(ctx context.Context, r *pageResults) error {
	if err := s.update(ctx, "MarkHandedOver", s.cfg.SweepGrace, r.scheduled); err != nil {
		return fmt.Errorf("mark %d timeouts as handed over: %w", len(r.scheduled), err)
	}
	if err := s.fireFromPostgres(ctx, r.refused); err != nil {
		return err
	}
	// What isn't postponed waits for the pause that the claim has set.
	if err := s.update(ctx, "Postpone", s.cfg.SweepGrace, r.failed); err != nil {
		r.failure = errors.Join(r.failure, fmt.Errorf("postpone %d timeouts: %w", len(r.failed), err))
	}
	if err := s.update(ctx, "Postpone", max(s.cfg.SweepGrace, s.cfg.RetryInterval), r.rejected); err != nil {
		r.failure = errors.Join(r.failure, fmt.Errorf("postpone %d timeouts: %w", len(r.rejected), err))
	}
	return nil
}

// sendDue sends the events of timeouts that are due at now, the time of Postgres.
func (s *Scheduler) sendDue(stopping, requests context.Context, due []handOver, now time.Time, results *pageResults) {
	if stopping.Err() != nil {
		for _, h := range due {
			results.addEvent(h, errNotTried)
		}
		return
	}
	for n, err := range s.send(requests, due) {
		h := due[n]
		results.addEvent(h, err)
		if err != nil {
			continue
		}
		i := h.info()
		i.Late = now.Sub(h.dueAt)
		if h.sends == 1 && !h.handedOver && i.Late < s.cfg.SweepGrace {
			notify(s.cfg.Listener.HandedOver, i) // it fires from Postgres
		} else {
			notify(s.cfg.Listener.Recovered, i)
		}
	}
}

// scheduleSoon hands over timeouts that are due within the horizon. When the broker fails, it tries no more.
func (s *Scheduler) scheduleSoon(stopping, requests context.Context, soon []handOver, now time.Time, results *pageResults) {
	var unreachable atomic.Bool
	var group errgroup.Group
	group.SetLimit(s.cfg.Workers)
	for _, h := range soon {
		group.Go(func() error {
			if unreachable.Load() || stopping.Err() != nil {
				results.addTimer(h, errNotTried)
				return nil
			}
			err := s.schedule(requests, h)
			if err == nil {
				i := h.info()
				i.Late = now.Sub(h.dueAt)
				notify(s.cfg.Listener.Recovered, i)
			} else if !errors.Is(err, broker.ErrRejected) {
				unreachable.Store(true)
			}
			results.addTimer(h, err)
			return nil
		})
	}
	_ = group.Wait() // they return nothing
}

// claimedPage is a page of timeouts that no other process sweeps at the same time.
type claimedPage struct {
	rows    []handOver
	horizon time.Duration // that the claim went by
	now     time.Time     // by Postgres
	hasNext bool          // whether nextIn is known
	nextIn  time.Duration // until the next timeout has to be swept
}

// claimPage claims the timeouts of one page. look makes it look for the time of the next one.
func (s *Scheduler) claimPage(ctx context.Context, look bool) (page claimedPage, err error) {
	page.horizon = s.horizon()
	err = s.readCommitted(ctx, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, s.sql.Get("Sweep"), int32(s.cfg.SweepPage), s.cfg.SweepGrace.Seconds(), s.cfg.RetryInterval.Seconds(), //nolint:gosec // a page is small
			page.horizon.Seconds(), s.cfg.StuckAfter.Seconds())
		if err != nil {
			return err
		}
		page.rows, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (h handOver, err error) {
			e := &h.event
			var headers []byte
			err = row.Scan(&e.TimeoutKey, &e.TimeoutName, &e.ID, &h.dueAt, &e.Time, &e.Source, &e.Topic, &e.Type, &e.Subject,
				&e.ContentType, &headers, &e.Body, &page.now, &h.handedOver, &h.sends, &h.newlyStuck)
			if err != nil {
				return h, err
			}
			return h, stored.SetHeaders(e, headers)
		})
		if err != nil || !look || len(page.rows) == s.cfg.SweepPage {
			return err
		}
		var micros int64
		err = tx.QueryRow(ctx, s.sql.Get("NextSweep")).Scan(&micros)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		page.hasNext, page.nextIn = err == nil, time.Duration(micros)*time.Microsecond
		return err
	})
	if err != nil {
		return claimedPage{}, fmt.Errorf("claim timeouts: %w", err)
	}
	for i, now := 0, s.cfg.Clock.Now(); i < len(page.rows); i++ {
		page.rows[i].dueHere = now.Add(page.rows[i].dueAt.Sub(page.now))
	}
	s.reportStuck(page.rows, page.now)
	return page, nil
}

// reportStuck reports the timeouts that have just become stuck: each of them to the listener, and one log line for each
// type of event.
func (s *Scheduler) reportStuck(page []handOver, now time.Time) {
	type eventType struct{ topic, eventType string }
	counts := map[eventType]int{}
	for _, h := range page {
		if h.newlyStuck {
			counts[eventType{h.event.Topic, h.event.Type}]++
		}
	}
	for _, h := range page {
		if !h.newlyStuck {
			continue
		}
		i := h.info()
		i.Late = now.Sub(h.dueAt)
		notify(s.cfg.Listener.Stuck, i)
		t := eventType{i.Topic, i.Type}
		if counts[t] == 0 {
			continue
		}
		s.cfg.Logger.Error("timeouts are stuck: their events were sent ten times or more and no consumer has handled them; they are sent once a day from now on. "+
			"Check that a consumer of the topic has a handler for the type, look at its dead letters (`rocketflow redrive list`), or disarm the timeouts. The line names one of them",
			keyTimeouts, counts[t], keyKey, i.Key, keyName, i.Name, keyType, i.Type, keyTopic, i.Topic, keyEvent, i.Epoch, keySends, i.Sends, keyOverdue, i.Late)
		counts[t] = 0
	}
}

// send delivers the events of timeouts now, and returns the error of each. The caller has made sure that the timeouts are due by
// the clock of Postgres.
func (s *Scheduler) send(ctx context.Context, due []handOver) []error {
	if len(due) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SendTimeout)
	defer cancel()
	messages := make([]broker.Message, len(due))
	for i, h := range due {
		messages[i] = s.message(h)
	}
	errs := s.cfg.Broker.SendGroup(ctx, messages)
	if errs == nil {
		return make([]error, len(due))
	}
	for i, err := range errs {
		if err != nil {
			s.reportFailure(due[i], err)
			errs[i] = printable.Errorf("send timeout %s of %s: %w", due[i].event.TimeoutName, due[i].event.TimeoutKey, err)
		}
	}
	return errs
}

// message encodes the event of h. Only a scheduler that was started calls it: s.database is set.
func (s *Scheduler) message(h handOver) broker.Message {
	h.event.Database = *s.database.Load()
	return wire.MessageOf(h.event)
}
