package timeout

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// handOver is a timeout that is to be given to the broker.
type handOver struct {
	event      rocketflow.Event
	dueAt      time.Time
	sends      int  // how often the sweep sent the event, this time included
	newlyStuck bool // the sweep has just found the timeout to be stuck
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

// handOverPending runs the workers until stopping ends and the queue is empty, and then closes handedOver.
func (s *Scheduler) handOverPending(stopping, requests context.Context, handedOver chan<- timeoutID) {
	var workers sync.WaitGroup
	for range s.cfg.Workers {
		workers.Go(func() { s.worker(stopping, requests, handedOver) })
	}
	workers.Wait()
	close(handedOver)
}

// worker hands over what comes into the queue. Once stopping has ended it drains the queue, and gives up at the first
// failure of the broker.
func (s *Scheduler) worker(stopping, requests context.Context, handedOver chan<- timeoutID) {
	handOver := func(h handOver) bool {
		err := s.schedule(requests, h)
		if err == nil {
			handedOver <- h.id()
		}
		return err == nil
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

// schedule has the broker store a timer for h.
func (s *Scheduler) schedule(ctx context.Context, h handOver) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SendTimeout)
	defer cancel()
	// The timers of brokers have a precision of milliseconds.
	if _, err := s.cfg.Broker.Schedule(ctx, s.message(h), roundUp(h.dueAt, time.Millisecond)); err != nil {
		s.reportFailure(h, err)
		return printable.Errorf("schedule timeout %s of %s: %w", h.event.TimeoutName, h.event.TimeoutKey, err)
	}
	notify(s.cfg.Listener.HandedOver, h.info())
	return nil
}

func (s *Scheduler) reportFailure(h handOver, err error) {
	i := h.info()
	i.Err = err
	notify(s.cfg.Listener.HandOverFailed, i)
	// Debug, because an unreachable broker causes one line for each timeout. The sweep logs a warning with their number.
	s.cfg.Logger.Debug("the broker did not accept a timeout; the sweep hands it over again", keyKey, i.Key, keyName, i.Name, keyError, err)
}

// recordHandOvers writes down in batches what the broker has accepted, until handedOver is closed.
func (s *Scheduler) recordHandOvers(ctx context.Context, handedOver <-chan timeoutID) {
	const maxBatch = 512
	batch := make([]timeoutID, 0, maxBatch)
	for id := range handedOver {
		batch = append(batch[:0], id)
		for more := true; more && len(batch) < maxBatch; {
			select {
			case id, more = <-handedOver:
				if more {
					batch = append(batch, id)
				}
			default:
				more = false
			}
		}
		if err := s.update(ctx, "MarkHandedOver", batch); err != nil {
			s.cfg.Logger.Warn("timeouts were handed over to the broker, but this could not be recorded; the sweep hands them over a second time, which has no effect",
				keyTimeouts, len(batch), keyError, err)
		}
	}
}

// update runs MarkHandedOver or Postpone on a batch of rows.
func (s *Scheduler) update(ctx context.Context, query string, batch []timeoutID) error {
	if len(batch) == 0 {
		return nil
	}
	keys, names, epochs := make([]string, len(batch)), make([]string, len(batch)), make([]string, len(batch))
	for i, id := range batch {
		keys[i], names[i], epochs[i] = id.key, id.name, id.epoch.String()
	}
	return s.readCommitted(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, s.sql.Get(query), keys, names, epochs, s.cfg.SweepGrace.Seconds())
		return err
	})
}

// readCommitted runs fn in a transaction at read committed, whatever the database's default is: at this isolation a row
// that another transaction changes at the same time is no error.
func (s *Scheduler) readCommitted(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SendTimeout)
	defer cancel()
	options := pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite}
	return pgx.BeginTxFunc(ctx, s.cfg.Pool, options, func(tx pgx.Tx) error { return fn(ctx, tx) })
}
