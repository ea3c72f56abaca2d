package timeout

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/lazytx"
	"github.com/rocketflow/rocketflow/internal/listen"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// handOver is a timeout that is to be given to the broker.
type handOver struct {
	event      rocketflow.Event
	dueAt      time.Time // by Postgres
	dueHere    time.Time // by Config.Clock, not earlier than dueAt
	handedOver bool      // the broker has a timer for it already
	sends      int       // how often the sweep sent the event, this time included
	newlyStuck bool      // the sweep has just found the timeout to be stuck
}

func (h handOver) info() Info {
	return Info{
		Key: h.event.TimeoutKey, Name: h.event.TimeoutName, Epoch: h.event.ID, DueAt: h.dueAt, Topic: h.event.Topic, Type: h.event.Type, Sends: h.sends,
	}
}

// timeoutID identifies the row of a timeout as long as it carries this epoch.
type timeoutID struct {
	key, name string
	epoch     uuid.UUID
}

func (h handOver) id() timeoutID {
	return timeoutID{h.event.TimeoutKey, h.event.TimeoutName, h.event.ID}
}

// enqueue gives h to the workers. If the queue is full or the scheduler is stopped, the sweep hands h over.
func (s *Scheduler) enqueue(h handOver) {
	if !s.group.Running() {
		return
	}
	select {
	case s.pending <- h:
	default:
	}
}

// outcome is what became of a timeout of the queue.
type outcome struct {
	handOver
	refused bool // the broker rejects the timer: the timeout fires from Postgres
}

// handOverPending runs the workers until stopping ends and the queue is empty, and then closes outcomes.
func (s *Scheduler) handOverPending(stopping, requests context.Context, outcomes chan<- outcome) {
	var workers sync.WaitGroup
	for range s.cfg.Workers {
		workers.Go(func() { s.worker(stopping, requests, outcomes) })
	}
	workers.Wait()
	close(outcomes)
}

// worker hands over the timeouts of the queue. Once stopping has ended it drains the queue, until it is empty or the broker
// fails.
func (s *Scheduler) worker(stopping, requests context.Context, outcomes chan<- outcome) {
	handOver := func(h handOver) (responded bool) {
		err := s.handOverArmed(requests, h)
		switch wasDue := h.wasDueWhenArmed(); {
		case err == nil:
			outcomes <- outcome{h, false}
		case errors.Is(err, broker.ErrRejected) && !wasDue:
			outcomes <- outcome{h, true}
		default:
			return false
		}
		return true
	}
	for {
		select {
		case h := <-s.pending:
			handOver(h)
			continue
		case <-stopping.Done():
		}
		for {
			select {
			case h := <-s.pending:
				if !handOver(h) {
					return
				}
			default:
				return
			}
		}
	}
}

// wasDueWhenArmed reports whether the timeout was due, by the clock of Postgres, when it was armed or moved.
func (h handOver) wasDueWhenArmed() bool { return !h.dueAt.After(h.event.Time) }

// handOverArmed gives a timeout to the broker that this process has just armed or moved.
func (s *Scheduler) handOverArmed(ctx context.Context, h handOver) error {
	switch {
	case s.horizonOf(h.event.Topic) > 0:
		return s.schedule(ctx, h)
	case !h.wasDueWhenArmed():
		return broker.ErrNoTimers // since it was put into the queue
	}
	if err := s.send(ctx, []handOver{h})[0]; err != nil {
		return err
	}
	listen.Notify(s.cfg.Listener.HandedOver, h.info())
	return nil
}

// schedule has the broker store a timer for h.
func (s *Scheduler) schedule(ctx context.Context, h handOver) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SendTimeout)
	defer cancel()
	// The timers of brokers have a precision of milliseconds.
	if _, err := s.cfg.Broker.Schedule(ctx, s.message(h), roundUp(h.dueAt, time.Millisecond)); err != nil {
		s.reportFailure(h, err)
		if errors.Is(err, broker.ErrRejected) {
			s.rememberRejection(h.event.Topic, err)
		}
		return printable.Errorf("schedule timeout %s of %s: %w", h.event.TimeoutName, h.event.TimeoutKey, err)
	}
	listen.Notify(s.cfg.Listener.HandedOver, h.info())
	return nil
}

func (s *Scheduler) reportFailure(h handOver, err error) {
	i := h.info()
	i.Err = err
	listen.Notify(s.cfg.Listener.HandOverFailed, i)
	// Debug, because an unreachable broker causes one line for each timeout. The sweep logs a warning with their number.
	s.cfg.Logger.Debug("the broker did not accept a timeout; the sweep hands it over again", keyKey, i.Key, keyName, i.Name, keyError, err)
}

// recordOutcomes writes down in batches what became of the timeouts of the queue, until outcomes is closed.
func (s *Scheduler) recordOutcomes(ctx context.Context, outcomes <-chan outcome) {
	const maxBatch = 512
	var accepted []timeoutID
	var refused []handOver
	add := func(o outcome) {
		if o.refused {
			refused = append(refused, o.handOver)
		} else {
			accepted = append(accepted, o.id())
		}
	}
	for o := range outcomes {
		accepted, refused = accepted[:0], refused[:0]
		add(o)
		for more := true; more && len(accepted)+len(refused) < maxBatch; {
			select {
			case o, more = <-outcomes:
				if more {
					add(o)
				}
			default:
				more = false
			}
		}
		if err := s.update(ctx, "MarkHandedOver", accepted, s.cfg.SweepGrace.Seconds()); err != nil {
			s.cfg.Logger.Warn("timeouts were handed over to the broker, but this could not be recorded; the sweep hands them over a second time, which has no effect",
				keyTimeouts, len(accepted), keyError, err)
		}
		if err := s.fireFromPostgres(ctx, refused); err != nil {
			s.cfg.Logger.Warn("the broker rejected the timers of timeouts, but this could not be recorded; the sweep tries to hand them over again",
				keyTimeouts, len(refused), keyError, err)
		}
	}
}

// fireFromPostgres records that the broker rejects the timers of these timeouts: the sweep sends their events when they are due.
func (s *Scheduler) fireFromPostgres(ctx context.Context, refused []handOver) error {
	ids := make([]timeoutID, len(refused))
	for i, h := range refused {
		ids[i] = h.id()
	}
	if err := s.update(ctx, "FireFromPostgres", ids); err != nil {
		return fmt.Errorf("let %d timeouts fire from Postgres: %w", len(ids), err)
	}
	for _, h := range refused {
		s.sweepAt(h.dueHere)
	}
	return nil
}

// update runs MarkHandedOver, FireFromPostgres or Postpone on a batch of rows. more are the arguments after the batch.
func (s *Scheduler) update(ctx context.Context, query string, batch []timeoutID, more ...any) error {
	if len(batch) == 0 {
		return nil
	}
	keys, names, epochs := make([]string, len(batch)), make([]string, len(batch)), make([]string, len(batch))
	for i, id := range batch {
		keys[i], names[i], epochs[i] = id.key, id.name, id.epoch.String()
	}
	args := append([]any{keys, names, epochs}, more...)
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SendTimeout)
	defer cancel()
	_, err := lazytx.On(s.cfg.Pool).Exec(ctx, s.sql.Get(query), args...)
	return err
}

// inTx is lazytx.InTx on the scheduler's pool, for at most Config.SendTimeout.
func (s *Scheduler) inTx(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SendTimeout)
	defer cancel()
	return lazytx.InTx(ctx, s.cfg.Pool, func(tx pgx.Tx) error { return fn(ctx, tx) })
}
