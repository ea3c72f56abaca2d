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
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/stored"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// sweepLoop looks for what waits, until quit.
func (s *Scheduler) sweepLoop(ctx context.Context, quit <-chan struct{}) {
	for !closed(quit) {
		moved := clock.Moved(s.cfg.Clock)
		again, err := s.sweep(ctx, quit)
		if err != nil && ctx.Err() == nil {
			s.cfg.Logger.Warn("sweep of timeouts ended early; what is due waits, and the next pass follows", "error", err, "after", s.cfg.SweepInterval)
		}
		if again && err == nil {
			continue
		}
		next, giveUp := s.cfg.Clock.After(s.cfg.SweepInterval)
		select {
		case <-quit:
		case <-moved:
		case <-next:
		}
		giveUp()
	}
}

// errSkipped: the broker failed for another timeout of the batch, or the scheduler stops.
var errSkipped = errors.New("not tried")

// sweep takes one batch and gives it to the broker, outside of any transaction. true: there may be more.
func (s *Scheduler) sweep(ctx context.Context, quit <-chan struct{}) (bool, error) {
	jobs, now, err := s.take(ctx)
	if err != nil {
		return false, err
	}
	var (
		mu             sync.Mutex
		taken, refused []mark
		failure        error
		away           bool // the broker, it seems; a message that it rejects says nothing of the others
	)
	var group errgroup.Group
	group.SetLimit(s.cfg.Workers)
	for _, j := range jobs {
		overdue := !j.at.After(now)
		if !overdue && j.at.Sub(now) > s.cfg.Horizon {
			continue // armed by a process with a longer horizon: taking it has put it off until it is within ours
		}
		group.Go(func() error {
			mu.Lock()
			skip := away || closed(quit)
			mu.Unlock()
			err := errSkipped
			if !skip {
				err = s.giveAgain(ctx, j, now, overdue)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				refused = append(refused, j.mark())
				if !skip {
					failure, away = err, away || !errors.Is(err, broker.ErrRejected)
				}
			case !overdue:
				taken = append(taken, j.mark())
			}
			return nil
		})
	}
	_ = group.Wait() // they return nothing
	if err := s.exec(ctx, "MarkHandedOver", taken); err != nil {
		return false, fmt.Errorf("mark %d timeouts handed over: %w", len(taken), err)
	}
	if err := s.exec(ctx, "Release", refused); err != nil {
		failure = errors.Join(failure, fmt.Errorf("release: %w", err)) // they only wait longer
	}
	if failure != nil {
		return false, fmt.Errorf("%d of %d timeouts not handed over: %w", len(refused), len(jobs), failure)
	}
	return len(jobs) == s.cfg.SweepBatch, nil
}

// giveAgain gives one timeout to the broker: as a timer, or as a plain message if it is overdue.
func (s *Scheduler) giveAgain(ctx context.Context, j job, now time.Time, overdue bool) error {
	give := s.schedule
	if overdue {
		give = s.send
	}
	if err := give(ctx, j); err != nil {
		return err
	}
	i := j.info()
	i.Late = now.Sub(j.at)
	tell(s.cfg.Listener.Recovered, i)
	return nil
}

func closed(quit <-chan struct{}) bool {
	select {
	case <-quit:
		return true
	default:
		return false
	}
}

// take claims a batch and returns it with Postgres' time.
func (s *Scheduler) take(ctx context.Context) ([]job, time.Time, error) {
	var (
		now  time.Time
		jobs []job
	)
	err := s.within(ctx, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, s.sql.Get("Sweep"), int32(s.cfg.SweepBatch), s.cfg.Grace.Seconds(), s.cfg.Resend.Seconds(), //nolint:gosec // a batch is small
			s.cfg.Horizon.Seconds(), s.cfg.StuckAfter.Seconds())
		if err != nil {
			return err
		}
		jobs, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (j job, err error) {
			e := &j.event
			var headers []byte
			err = row.Scan(&e.TimeoutKey, &e.TimeoutName, &e.ID, &j.at, &e.Time, &e.Source, &e.Topic, &e.Type, &e.Subject,
				&e.ContentType, &headers, &e.Body, &now, &j.sends, &j.stuck)
			if err != nil {
				return j, err
			}
			return j, stored.SetHeaders(e, headers)
		})
		return err
	})
	if err != nil {
		return nil, now, fmt.Errorf("take timeouts: %w", err)
	}
	s.reportStuck(jobs, now)
	return jobs, now, nil
}

// reportStuck tells of timeouts whose event was sent again and again and that nobody has handled: once of each, with one
// line for each type of event.
func (s *Scheduler) reportStuck(jobs []job, now time.Time) {
	type kind struct{ topic, eventType string }
	counts := map[kind]int{}
	for _, j := range jobs {
		if j.stuck {
			counts[kind{j.event.Topic, j.event.Type}]++
		}
	}
	for _, j := range jobs {
		if !j.stuck {
			continue
		}
		i := j.info()
		i.Late = now.Sub(j.at)
		tell(s.cfg.Listener.Stuck, i)
		k := kind{i.Topic, i.Type}
		if counts[k] == 0 {
			continue
		}
		s.cfg.Logger.Error("timeouts are stuck: their event was sent again and again and nobody has handled it; it is sent once a day from now on. "+
			"See that a consumer of the topic has a handler for the type, look at its dead letters (`rocketflow redrive list`), or disarm the timeout. One is named",
			"timeouts", counts[k], "timeout_key", i.Key, "timeout_name", i.Name, "type", i.Type, "topic", i.Topic, "event_id", i.Epoch,
			"sends", i.Sends, "overdue", i.Late)
		counts[k] = 0
	}
}

// send delivers an overdue timeout now.
func (s *Scheduler) send(ctx context.Context, j job) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SendTime)
	defer cancel()
	if _, err := s.cfg.Broker.Send(ctx, s.message(j)); err != nil {
		s.failed(j, err)
		return printable.Errorf("send timeout %s of %s: %w", j.event.TimeoutName, j.event.TimeoutKey, err)
	}
	return nil
}

func (s *Scheduler) message(j job) broker.Message {
	j.event.Database = *s.database.Load() // read before anything is handed over
	return wire.MessageOf(j.event)
}
