package timeout

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/stored"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// sweepLoop sweeps until stopping ends, without a pause as long as a sweep finds a full page.
func (s *Scheduler) sweepLoop(stopping, requests context.Context) {
	background.Loop{Clock: s.cfg.Clock}.Run(stopping, func(context.Context) time.Duration {
		more, err := s.sweep(stopping, requests)
		if err != nil && requests.Err() == nil {
			s.cfg.Logger.Warn("the sweep of timeouts failed; timeouts that are due wait for the next sweep", keyError, err, keyAfter, s.cfg.SweepInterval)
		}
		if more && err == nil {
			return 0
		}
		return s.cfg.SweepInterval
	})
}

// errNotTried is the error of a timeout that the sweep did not give to the broker, because the broker failed for another
// timeout of the page or because the scheduler stops.
var errNotTried = errors.New("not tried")

// sweep claims one page of timeouts and gives them to the broker, outside of any transaction. It returns true if there may
// be more.
func (s *Scheduler) sweep(stopping, requests context.Context) (more bool, err error) {
	page, now, err := s.claimPage(requests)
	if err != nil {
		return false, err
	}
	var (
		mu               sync.Mutex
		accepted, failed []timeoutID
		failure          error
		unreachable      bool // the broker failed, other than by rejecting one message
	)
	var group errgroup.Group
	group.SetLimit(s.cfg.Workers)
	for _, h := range page {
		overdue := !h.dueAt.After(now)
		if !overdue && h.dueAt.Sub(now) > s.cfg.Horizon {
			continue // armed by a process with a longer horizon; the claim has postponed it until it is within this one's
		}
		group.Go(func() error {
			mu.Lock()
			skip := unreachable || stopping.Err() != nil
			mu.Unlock()
			err := errNotTried
			if !skip {
				err = s.handOverAgain(requests, h, now, overdue)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				failed = append(failed, h.id())
				if !skip {
					failure, unreachable = err, unreachable || !errors.Is(err, broker.ErrRejected)
				}
			case !overdue:
				accepted = append(accepted, h.id())
			}
			return nil
		})
	}
	_ = group.Wait() // they return nothing
	if err := s.update(requests, "MarkHandedOver", accepted); err != nil {
		return false, fmt.Errorf("mark %d timeouts as handed over: %w", len(accepted), err)
	}
	if err := s.update(requests, "Postpone", failed); err != nil {
		failure = errors.Join(failure, fmt.Errorf("postpone %d timeouts: %w", len(failed), err)) // they wait longer
	}
	if failure != nil {
		return false, fmt.Errorf("%d of %d timeouts not handed over: %w", len(failed), len(page), failure)
	}
	return len(page) == s.cfg.SweepPage, nil
}

// handOverAgain gives one timeout to the broker: its event if it is overdue, a timer otherwise.
func (s *Scheduler) handOverAgain(ctx context.Context, h handOver, now time.Time, overdue bool) error {
	give := s.schedule
	if overdue {
		give = s.send
	}
	if err := give(ctx, h); err != nil {
		return err
	}
	i := h.info()
	i.Late = now.Sub(h.dueAt)
	notify(s.cfg.Listener.Recovered, i)
	return nil
}

// claimPage claims the timeouts of one page, so that no other process sweeps them at the same time, and returns them with
// the time of Postgres.
func (s *Scheduler) claimPage(ctx context.Context) ([]handOver, time.Time, error) {
	var (
		now  time.Time
		page []handOver
	)
	err := s.readCommitted(ctx, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, s.sql.Get("Sweep"), int32(s.cfg.SweepPage), s.cfg.SweepGrace.Seconds(), s.cfg.RetryInterval.Seconds(), //nolint:gosec // a page is small
			s.cfg.Horizon.Seconds(), s.cfg.StuckAfter.Seconds())
		if err != nil {
			return err
		}
		page, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (h handOver, err error) {
			e := &h.event
			var headers []byte
			err = row.Scan(&e.TimeoutKey, &e.TimeoutName, &e.ID, &h.dueAt, &e.Time, &e.Source, &e.Topic, &e.Type, &e.Subject,
				&e.ContentType, &headers, &e.Body, &now, &h.sends, &h.newlyStuck)
			if err != nil {
				return h, err
			}
			return h, stored.SetHeaders(e, headers)
		})
		return err
	})
	if err != nil {
		return nil, now, fmt.Errorf("claim timeouts: %w", err)
	}
	s.reportStuck(page, now)
	return page, now, nil
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

// send delivers the event of an overdue timeout now.
func (s *Scheduler) send(ctx context.Context, h handOver) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SendTimeout)
	defer cancel()
	if _, err := s.cfg.Broker.Send(ctx, s.message(h)); err != nil {
		s.reportFailure(h, err)
		return printable.Errorf("send timeout %s of %s: %w", h.event.TimeoutName, h.event.TimeoutKey, err)
	}
	return nil
}

// message encodes the event of h. Only a scheduler that was started calls it: s.database is set.
func (s *Scheduler) message(h handOver) broker.Message {
	h.event.Database = *s.database.Load()
	return wire.MessageOf(h.event)
}
