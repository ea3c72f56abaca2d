package timeout

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// job is a timeout on its way to the broker.
type job struct {
	event rocketflow.Event
	at    time.Time
	sends int  // by the sweep, this one included
	stuck bool // it has become so just now
}

func (j job) info() Info {
	return Info{
		Key: j.event.TimeoutKey, Name: j.event.TimeoutName, Epoch: j.event.ID, DueAt: j.at, Topic: j.event.Topic, Type: j.event.Type, Sends: j.sends,
	}
}

// mark names a row, by its epoch, that the broker has taken or refused.
type mark struct {
	key, name string
	epoch     uuid.UUID
}

func (j job) mark() mark { return mark{j.event.TimeoutKey, j.event.TimeoutName, j.event.ID} }

// offer gives a job to the workers. Without room, or without workers, it is the sweep's.
func (s *Scheduler) offer(j job) {
	if !s.running.Load() {
		return
	}
	select {
	case s.pending <- j:
	default:
	}
}

// work hands over until quit, and then what is still in memory, if the broker takes it.
func (s *Scheduler) work(ctx context.Context, quit <-chan struct{}, marks chan<- mark) {
	do := func(j job) bool {
		err := s.schedule(ctx, j)
		if err == nil {
			marks <- j.mark()
		}
		return err == nil
	}
	for {
		select {
		case j := <-s.pending:
			do(j)
			continue
		case <-quit:
		}
		for {
			select {
			case j := <-s.pending:
				if !do(j) {
					return
				}
			default:
				return
			}
		}
	}
}

// schedule has the broker store the timer.
func (s *Scheduler) schedule(ctx context.Context, j job) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SendTime)
	defer cancel()
	// Brokers count in milliseconds.
	if _, err := s.cfg.Broker.Schedule(ctx, s.message(j), ceil(j.at, time.Millisecond)); err != nil {
		s.failed(j, err)
		return printable.Errorf("schedule timeout %s of %s: %w", j.event.TimeoutName, j.event.TimeoutKey, err)
	}
	tell(s.cfg.Listener.HandedOver, j.info())
	return nil
}

func (s *Scheduler) failed(j job, err error) {
	if s.cfg.Listener.HandOverFailed != nil {
		s.cfg.Listener.HandOverFailed(j.info(), err)
	}
	// One line a timeout would be many when the broker is away; the sweep says how many there are.
	s.cfg.Logger.Debug("timeout not handed over", "timeout_key", j.event.TimeoutKey, "timeout_name", j.event.TimeoutName, "error", err)
}

// markLoop records what was handed over. While one statement runs, the next batch gathers.
func (s *Scheduler) markLoop(ctx context.Context, marks <-chan mark) {
	const most = 512
	batch := make([]mark, 0, most)
	for m := range marks {
		batch = append(batch[:0], m)
		for more := true; more && len(batch) < most; {
			select {
			case m, more = <-marks:
				if more {
					batch = append(batch, m)
				}
			default:
				more = false
			}
		}
		if err := s.exec(ctx, "MarkHandedOver", batch); err != nil {
			// They will be handed over once more, which is harmless.
			s.cfg.Logger.Warn("timeouts handed over but not marked", "timeouts", len(batch), "error", err)
		}
	}
}

// exec runs a statement about rows and the grace.
func (s *Scheduler) exec(ctx context.Context, query string, batch []mark) error {
	if len(batch) == 0 {
		return nil
	}
	keys, names, epochs := make([]string, len(batch)), make([]string, len(batch)), make([]string, len(batch))
	for i, m := range batch {
		keys[i], names[i], epochs[i] = m.key, m.name, m.epoch.String()
	}
	return s.within(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, s.sql.Get(query), keys, names, epochs, s.cfg.Grace.Seconds())
		return err
	})
}

// within runs the scheduler's own statements, at an isolation at which a row that changes meanwhile is no error, whatever
// the database's default is.
func (s *Scheduler) within(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SendTime)
	defer cancel()
	options := pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite}
	return pgx.BeginTxFunc(ctx, s.cfg.Pool, options, func(tx pgx.Tx) error { return fn(ctx, tx) })
}
