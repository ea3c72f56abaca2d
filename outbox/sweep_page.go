package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
)

// owedRow is a row of an owed event, without headers and body.
type owedRow struct {
	xid   int64
	age   time.Duration
	event rocketflow.Event
	size  int // of the body
}

// sweepBytes bounds the bodies that a sweep reads into memory at a time. One event is always read.
const sweepBytes = 8 << 20

// readPage reads the next owed rows after one.
func (s *sweeper) readPage(ctx context.Context, p sweepProgress, after owedRow, limit int) ([]owedRow, error) {
	o := s.outbox
	rows, err := o.db().Query(ctx, o.queries.Get("OwedPage"), p.seen, p.recheck, after.xid, after.event.ID.String(), limit)
	if err != nil {
		return nil, fmt.Errorf("find owed events: %w", err)
	}
	page, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r owedRow, err error) {
		var (
			seconds float64
			e       = &r.event
		)
		err = row.Scan(&r.xid, &seconds, &e.ID, &e.Source, &e.Topic, &e.Subject, &e.Sequence, &e.Time, &r.size)
		r.age = time.Duration(seconds * float64(time.Second))
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("find owed events: %w", err)
	}
	return page, nil
}

// outcome says which of the sent events are no longer owed, and which were rejected.
type outcome struct {
	acked    map[uuid.UUID]bool // by this call, or before it
	rejected map[uuid.UUID]bool // and recorded as such
}

// send sends the events of rows through the relay, at most at DrainRate, and acknowledges those that were sent. An error
// means that the pass should end.
func (s *sweeper) send(ctx context.Context, rows []owedRow) (outcome, error) {
	out := outcome{map[uuid.UUID]bool{}, map[uuid.UUID]bool{}}
	// An event must not be sent by the sweep while a check-back commits its half message, nor the other way round.
	rows = slices.DeleteFunc(rows, func(r owedRow) bool { return !s.checking.begin(r.event.ID) })
	defer func() {
		for _, r := range rows {
			s.checking.end(r.event.ID)
		}
	}()
	// Rows are ordered by transaction id, which is not the order of a stream.
	slices.SortStableFunc(rows, func(a, b owedRow) int { return cmp.Compare(sendPosition(a.event), sendPosition(b.event)) })
	for rest := rows; len(rest) > 0; {
		n, size := 0, 0
		for n < len(rest) && (n == 0 || size+rest[n].size+eventOverhead <= sweepBytes) {
			size += rest[n].size + eventOverhead
			n++
		}
		ids := make([]string, n)
		for i, r := range rest[:n] {
			ids[i] = r.event.ID.String()
		}
		rest = rest[n:]
		events, err := s.outbox.load(ctx, s.database, ids)
		if err != nil {
			return out, err
		}
		if err := s.sendLoaded(ctx, events, &out); err != nil {
			return out, err
		}
	}
	return out, nil
}

// load reads the events that have no acknowledgement yet, in the order of their streams.
func (o *Outbox) load(ctx context.Context, database string, ids []string) ([]rocketflow.Event, error) {
	rows, err := o.db().Query(ctx, o.queries.Get("LoadOwed"), ids)
	if err != nil {
		return nil, fmt.Errorf("read owed events: %w", err)
	}
	events, err := pgx.CollectRows(rows, scanEvent(database))
	if err != nil {
		return nil, fmt.Errorf("read owed events: %w", err)
	}
	slices.SortStableFunc(events, func(a, b rocketflow.Event) int { return cmp.Compare(sendPosition(a), sendPosition(b)) })
	return events, nil
}

// sendLoaded sends events that were loaded, and adds their outcome to out.
func (s *sweeper) sendLoaded(ctx context.Context, events []rocketflow.Event, out *outcome) error {
	var (
		mu       sync.Mutex
		sent     []uuid.UUID
		rejected []rejectedEvent
		away     error
		pending  sync.WaitGroup
	)
	gone := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return away != nil
	}
	for _, e := range events {
		if s.drain.Wait(ctx) != nil || gone() {
			break
		}
		pending.Add(1)
		ok := s.relay.send(e, func(err error) {
			mu.Lock()
			defer mu.Unlock()
			defer pending.Done()
			switch {
			case err == nil:
				sent = append(sent, e.ID)
			case errors.Is(err, broker.ErrRejected):
				rejected = append(rejected, newRejected(e, err))
			default:
				away = err
			}
		})
		if !ok {
			pending.Done()
			break
		}
	}
	pending.Wait()
	for _, id := range sent {
		s.unwritten = append(s.unwritten, acked{id, bySweep})
	}
	if err := s.writeAcks(ctx); err != nil {
		return err
	}
	for _, id := range sent {
		out.acked[id] = true
	}
	if len(rejected) > 0 {
		if err := s.outbox.recordRejections(ctx, rejected, false); err != nil {
			return err
		}
		for _, r := range rejected {
			out.rejected[r.id] = true
		}
	}
	if away != nil {
		return fmt.Errorf("send owed events: %w", away)
	}
	return ctx.Err()
}

// writeAcks writes the acknowledgements of sent events, also when ctx has ended. Those that can't be written are retried
// before the next pass sends anything.
func (s *sweeper) writeAcks(ctx context.Context) error {
	if len(s.unwritten) == 0 {
		return nil
	}
	write, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := s.outbox.ack(write, s.unwritten); err != nil {
		return fmt.Errorf("%w: %w", errUnacked, err)
	}
	s.unwritten = nil
	return nil
}

// sendPosition orders events by their sequence, which is a time in microseconds, or by their time.
func sendPosition(e rocketflow.Event) int64 {
	if e.Ordered() {
		return e.Sequence
	}
	return e.Time.UnixMicro()
}
