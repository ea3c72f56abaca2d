package outbox

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
)

// sweeper finds what is owed and older than the grace, and sends it: what a process that died, a lost end, a broker
// that lost its disk or a full memory left behind. One process at a time sweeps.
//
// It looks at rows from a mark on: a transaction id below which every row has an ack. A mark by time would step over
// rows that become visible late because their transaction was open for long; the mark never passes the oldest
// transaction that is still open.
type sweeper struct {
	outbox   *Outbox
	database string
	relay    *relay
	cancel   context.CancelFunc
	done     chan struct{}

	rejections rejections // touched by one pass at a time
}

func (o *Outbox) startSweep(r *running) *sweeper {
	ctx, cancel := context.WithCancel(context.Background())
	s := &sweeper{outbox: o, database: r.database, relay: r.relay, cancel: cancel, done: make(chan struct{})}
	go s.run(ctx)
	return s
}

func (s *sweeper) stop() {
	s.cancel()
	<-s.done
}

func (s *sweeper) run(ctx context.Context) {
	defer close(s.done)
	for {
		// Begun before the pass, as a ticker: a clock that is moved meanwhile ends it.
		next, giveUp := s.outbox.config.Clock.After(s.outbox.config.SweepInterval)
		begin := time.Now()
		sent, left, ours, err := s.sweep(ctx)
		if ctx.Err() != nil {
			giveUp()
			return
		}
		if err != nil {
			s.outbox.log.Warn("sweep ended early", "sent", sent, "error", err)
		}
		if ours {
			s.outbox.listener.Swept(SweptInfo{Sent: sent, Left: left, Took: time.Since(begin), Err: err})
		}
		select {
		case <-next:
		case <-ctx.Done():
			giveUp()
			return
		}
	}
}

// sweep makes one pass, unless another process is at it.
func (s *sweeper) sweep(ctx context.Context) (sent, left int, ours bool, err error) {
	o := s.outbox
	conn, err := o.config.Pool.Acquire(ctx)
	if err != nil {
		return 0, 0, true, fmt.Errorf("acquire connection: %w", err)
	}
	defer conn.Release()
	// Held by the session, not by a transaction: a pass can take long and must not hold back vacuum, nor its own mark.
	lock := "rocketflow sweep " + o.config.Schema
	if err := conn.QueryRow(ctx, o.queries.Get("TryLock"), lock).Scan(&ours); err != nil || !ours {
		return 0, 0, err != nil, err
	}
	defer func() {
		unlock, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if _, e := conn.Exec(unlock, o.queries.Get("Unlock"), lock); e != nil {
			_ = conn.Conn().Close(unlock) // the lock goes with the session
		}
	}()
	sent, left, err = s.pass(ctx, conn)
	return sent, left, true, err
}

func (s *sweeper) pass(ctx context.Context, conn *pgxpool.Conn) (sent, left int, err error) {
	o := s.outbox
	var markText, xminText string
	if err := conn.QueryRow(ctx, o.queries.Get("SweepStart")).Scan(&markText, &xminText); err != nil {
		return 0, 0, fmt.Errorf("read mark: %w", err)
	}
	mark, err := strconv.ParseUint(markText, 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("read mark: %w", err)
	}
	next, err := strconv.ParseUint(xminText, 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("read oldest transaction: %w", err)
	}
	after := uuid.Nil
	for {
		page, err := s.owed(ctx, conn, mark, after)
		if err != nil {
			return sent, left, err
		}
		acked, err := s.send(ctx, conn, page)
		sent += acked
		left += len(page) - acked
		if err != nil {
			return sent, left, err
		}
		if acked < len(page) {
			next = min(next, page[0].xid) // the page begins with the oldest; it may be acked, and costs a second look
		}
		// What is too young will be due in a moment; what comes after it, perhaps of the same stream, must not overtake.
		young := slices.ContainsFunc(page, func(row owed) bool { return !row.due })
		if young || len(page) < o.config.SweepPage {
			break
		}
		// On to the next page, also if nothing of this one could be sent: others must not wait behind what the broker
		// rejects.
		mark, after = page[len(page)-1].xid, page[len(page)-1].event.ID
	}
	if _, err := conn.Exec(ctx, o.queries.Get("SweepEnd"), strconv.FormatUint(next, 10)); err != nil {
		return sent, left, fmt.Errorf("move mark: %w", err)
	}
	return sent, left, nil
}

type owed struct {
	xid   uint64
	due   bool
	event rocketflow.Event
}

func (s *sweeper) owed(ctx context.Context, conn *pgxpool.Conn, mark uint64, after uuid.UUID) ([]owed, error) {
	o := s.outbox
	rows, err := conn.Query(ctx, o.queries.Get("Owed"), strconv.FormatUint(mark, 10), after, o.config.SweepGrace, o.config.SweepPage)
	if err != nil {
		return nil, fmt.Errorf("find owed events: %w", err)
	}
	page, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (owed, error) {
		var (
			r       owed
			xid     string
			headers []byte
			e       = &r.event
		)
		err := row.Scan(&xid, &r.due, &e.ID, &e.Source, &e.Topic, &e.Type, &e.Subject, &e.Sequence, &e.Previous, &e.Time, &e.ContentType, &headers, &e.Body)
		if err != nil {
			return r, err
		}
		if headers != nil {
			if err := json.Unmarshal(headers, &e.Headers); err != nil {
				return r, fmt.Errorf("headers of event %s: %w", e.ID, err)
			}
		}
		e.Database = s.database
		r.xid, err = strconv.ParseUint(xid, 10, 64)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("find owed events: %w", err)
	}
	return page, nil
}

// send has the relay send what is due of a page and acks what was sent. An error means that it is no use to go on now.
func (s *sweeper) send(ctx context.Context, conn *pgxpool.Conn, page []owed) (acked int, err error) {
	var due []rocketflow.Event
	for _, o := range page {
		if o.due && !s.rejections.rest(o.event, s.outbox.config.Clock.Now()) {
			due = append(due, o.event)
		}
	}
	if len(due) == 0 {
		return 0, nil
	}
	// Rows come by transaction id, which is not the order of a stream.
	slices.SortStableFunc(due, func(a, b rocketflow.Event) int { return cmp.Compare(place(a), place(b)) })
	var (
		mu      sync.Mutex
		sent    []uuid.UUID
		away    error
		pending sync.WaitGroup
	)
	gone := func() error {
		mu.Lock()
		defer mu.Unlock()
		return away
	}
	for _, e := range due {
		if ctx.Err() != nil || gone() != nil {
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
				s.rejections.add(e, err, s.outbox.config.Clock.Now())
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
	if len(sent) > 0 {
		// Also when ctx has ended: they are out.
		write, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		begin := time.Now()
		_, err := conn.Exec(write, s.outbox.queries.Get("Ack"), sent)
		s.outbox.listener.Acked(AckedInfo{IDs: sent, Took: time.Since(begin), Err: err})
		if err != nil {
			return 0, fmt.Errorf("ack swept events: %w", err)
		}
	}
	if away != nil {
		return len(sent), fmt.Errorf("send owed events: %w", away)
	}
	return len(sent), ctx.Err()
}

// place orders events: a sequence is a time in microseconds, too.
func place(e rocketflow.Event) int64 {
	if e.Ordered() {
		return e.Sequence
	}
	return e.Time.UnixMicro()
}
