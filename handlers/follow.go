package handlers

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
)

// followBatches is how many batches of one stream run before the lane's others have their turn.
const followBatches = 4

// follow runs what waits behind an event that has just had its effect: a batch in a transaction, as with events that
// come from the broker, so that a stream which was held up catches up. It may stop anywhere: the first that is left is
// due, and runs alone.
func (c *consumer) follow(ctx context.Context, s rocketflow.Stream) {
	if c.cfg.BatchSize == 1 {
		return
	}
	for range followBatches {
		if err := c.throttle(ctx, c.cfg.BatchSize); err != nil {
			return
		}
		f := &followers{consumer: c, stream: s}
		err := c.publishing(ctx, 0, f.run)
		if err != nil || len(f.done) == 0 {
			return // whose fault it is shows when the first runs alone
		}
		f.tell()
	}
}

// followers is one batch of parked events of one stream.
type followers struct {
	*consumer
	stream rocketflow.Stream
	done   []*follower
}

type follower struct {
	*record
	fate fate
	took time.Duration
}

func (f *followers) run(ctx context.Context, tx rocketflow.Tx) error {
	f.done = nil
	at, err := position(ctx, tx, f.sql, f.name, f.stream)
	if err != nil {
		return err
	}
	rows, err := f.load(ctx, tx)
	if err != nil {
		return err
	}
	at.head = 0 // they are it
	first := at.last
	for _, row := range rows {
		if row.Reason != Gap {
			break
		}
		next := &follower{record: row, fate: f.place(row.Event, at, f.now())}
		if next.fate != run && next.fate != duplicate {
			break
		}
		if next.fate == run {
			if next.took, err = f.call(ctx, tx, row.Event, row.Attempts+1); err != nil {
				return err
			}
			at.last = row.Event.Sequence
		}
		f.done = append(f.done, next)
	}
	if len(f.done) == 0 {
		return nil
	}
	ids := make([]uuid.UUID, len(f.done))
	for i, next := range f.done {
		ids[i] = next.Event.ID
	}
	s := f.stream
	var q pgx.Batch
	q.Queue(f.sql.Get("DeleteFollowers"), f.name, ids)
	if at.last > first {
		q.Queue(f.sql.Get("AdvancePosition"), f.name, s.Source, s.Topic, s.Subject, at.last)
	}
	q.Queue(f.sql.Get("WakeHeads"), f.name, []string{s.Source}, []string{s.Topic}, []string{s.Subject})
	if err := tx.SendBatch(ctx, &q).Close(); err != nil {
		return fmt.Errorf("advance position: %w", err)
	}
	f.cfg.Listener.Ran(BatchInfo{f.name, f.ran()})
	return nil
}

func (f *followers) load(ctx context.Context, tx pgx.Tx) ([]*record, error) {
	rows, err := tx.Query(ctx, f.sql.Get("LoadFollowers"), f.name, f.stream.Source, f.stream.Topic, f.stream.Subject, f.cfg.BatchSize)
	if err == nil {
		var list []*record
		if list, err = pgx.CollectRows(rows, scanParked); err == nil {
			return list, nil
		}
	}
	return nil, fmt.Errorf("read parked events: %w", err)
}

// ran lists the events whose handlers ran.
func (f *followers) ran() []rocketflow.Event {
	var events []rocketflow.Event
	for _, next := range f.done {
		if next.fate == run && f.handler(next.Event) != nil {
			events = append(events, next.Event)
		}
	}
	return events
}

func (f *followers) tell() {
	f.cfg.Listener.Committed(BatchInfo{f.name, f.ran()})
	for _, next := range f.done {
		e := next.Event
		switch {
		case next.fate == duplicate:
			f.cfg.Listener.Duplicate(f.info(e))
		case f.handler(e) == nil:
			f.cfg.Listener.Skipped(f.info(e))
		default:
			f.cfg.Listener.Handled(HandledInfo{
				EventInfo: f.info(e), Attempt: next.Attempts + 1, Took: next.took, Batch: len(f.done), Latency: f.now().Sub(e.Time),
			})
		}
	}
}
