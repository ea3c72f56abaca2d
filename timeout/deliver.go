package timeout

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/listen"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// errNotTried is the error of a timeout that the sweep did not give to the broker, because the broker failed for another
// timeout of the page or because the scheduler stops.
var errNotTried = errors.New("not tried")

// deliver gives the timeouts of a page to the broker, outside of any transaction. It returns false if nothing of it succeeded
// because the broker or the database failed: the next page would fail, too.
func (s *Scheduler) deliver(stopping, requests context.Context, page claimedPage) (responded bool, err error) {
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
		return false, err
	}
	if results.failure != nil {
		return results.responded(), fmt.Errorf("%d of %d timeouts not handed over: %w", len(results.failed)+len(results.rejected), len(page.rows), results.failure)
	}
	return results.responded(), nil
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

// responded reports whether the broker has responded for any timeout, or none was tried.
func (r *pageResults) responded() bool {
	return len(r.failed) == 0 || r.sent+len(r.scheduled)+len(r.refused)+len(r.rejected) > 0
}

// recordResults writes down what became of a page.
func (s *Scheduler) recordResults(ctx context.Context, r *pageResults) error {
	if err := s.update(ctx, "MarkHandedOver", r.scheduled, s.cfg.SweepGrace.Seconds()); err != nil {
		return fmt.Errorf("mark %d timeouts as handed over: %w", len(r.scheduled), err)
	}
	if err := s.fireFromPostgres(ctx, r.refused); err != nil {
		return err
	}
	// What isn't postponed waits for the pause that the claim has set.
	postpone := func(batch []timeoutID, atLeast, atMost time.Duration) {
		if err := s.update(ctx, "Postpone", batch, atLeast.Seconds(), atMost.Seconds(), s.cfg.SweepGrace.Seconds()); err != nil {
			r.failure = errors.Join(r.failure, fmt.Errorf("postpone %d timeouts: %w", len(batch), err))
		}
	}
	postpone(r.failed, min(s.cfg.SweepInterval, s.cfg.SweepGrace), max(s.cfg.SweepGrace, s.cfg.RetryInterval))
	postpone(r.rejected, max(s.cfg.SweepGrace, s.cfg.RetryInterval), max(s.cfg.SweepGrace, s.cfg.RetryInterval))
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
			listen.Notify(s.cfg.Listener.HandedOver, i) // it fires from Postgres
		} else {
			listen.Notify(s.cfg.Listener.Recovered, i)
		}
	}
}

// scheduleSoon hands over timeouts that are due within the horizon. When the broker fails, it tries no more.
func (s *Scheduler) scheduleSoon(stopping, requests context.Context, soon []handOver, now time.Time, results *pageResults) {
	var unreachable atomic.Bool
	slots := make(chan struct{}, s.cfg.Workers)
	var group sync.WaitGroup
	defer group.Wait()
	for _, h := range soon {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			if unreachable.Load() || stopping.Err() != nil {
				results.addTimer(h, errNotTried)
				return
			}
			err := s.schedule(requests, h)
			if err == nil {
				i := h.info()
				i.Late = now.Sub(h.dueAt)
				listen.Notify(s.cfg.Listener.Recovered, i)
			} else if !errors.Is(err, broker.ErrRejected) {
				unreachable.Store(true)
			}
			results.addTimer(h, err)
		})
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
