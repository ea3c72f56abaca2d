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
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SendTime)
	defer cancel()
	var now time.Time
	rows, err := s.cfg.Pool.Query(ctx, s.sql.Get("Sweep"), s.cfg.SweepBatch, s.cfg.Grace, s.cfg.Resend, s.cfg.Horizon)
	if err != nil {
		return nil, now, fmt.Errorf("take timeouts: %w", err)
	}
	jobs, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (j job, err error) {
		e := &j.event
		var headers []byte
		err = row.Scan(&e.TimeoutKey, &e.TimeoutName, &e.ID, &j.at, &e.Time, &e.Source, &e.Topic, &e.Type, &e.Subject,
			&e.ContentType, &headers, &e.Body, &now)
		if err == nil {
			err = stored.SetHeaders(e, headers)
		}
		return j, err
	})
	if err != nil {
		return nil, now, fmt.Errorf("take timeouts: %w", err)
	}
	return jobs, now, nil
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
	if id := s.database.Load(); id != nil {
		j.event.Database = *id
	}
	return j.event.Message()
}
