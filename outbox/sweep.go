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
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/time/rate"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/stored"
)

// sweeper finds what is owed and older than the grace, and sends it: what a process that died, a lost end, a broker
// that lost its disk or a full memory left behind. One process at a time sweeps; all read what it knows.
//
// It looks at rows by the id of their transaction, each once, except those that could not be sent or whose transaction
// was still open. A mark by time would step over rows that become visible late because their transaction was open for
// long.
type sweeper struct {
	outbox   *Outbox
	database string
	relay    *relay
	checking *inProgress
	cancel   context.CancelFunc
	done     chan struct{}

	// Touched by one pass at a time.
	rejections rejections
	drain      *rate.Limiter
	page       int       // rows to read at once: few while the broker is away
	rest       time.Time // until then no pass: the last was long and in vain
}

// carefulPage is the page of a sweep that doesn't know whether the broker is there.
const carefulPage = 16

func (o *Outbox) startSweep(r *running) *sweeper {
	ctx, cancel := context.WithCancel(context.Background())
	s := &sweeper{
		outbox: o, database: r.database, relay: r.relay, checking: &r.checking, cancel: cancel, done: make(chan struct{}),
		drain: rate.NewLimiter(rate.Limit(o.config.DrainRate), max(1, o.config.DrainRate/20)),
		page:  o.config.SweepPage,
	}
	if o.config.DrainRate < 0 {
		s.drain.SetLimit(rate.Inf)
	}
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

// sweep makes one pass, unless another process is at it; then it only reads what that one has counted.
func (s *sweeper) sweep(ctx context.Context) (sent, left int, ours bool, err error) {
	o := s.outbox
	conn, err := o.config.Pool.Acquire(ctx)
	if err != nil {
		return 0, 0, true, fmt.Errorf("acquire connection: %w", err)
	}
	defer conn.Release()
	// Held by the session, not by a transaction: a pass can take long and must not hold back vacuum, nor its own snapshot.
	v, ours, err := o.look(ctx, conn, !time.Now().Before(s.rest))
	if err != nil {
		return 0, 0, true, err
	}
	o.gauge.update(o.config.Clock.Now(), v)
	if !ours {
		return 0, 0, false, nil
	}
	defer func() {
		unlock, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if _, e := conn.Exec(unlock, o.queries.Get("Unlock"), o.sweepLock()); e != nil {
			_ = conn.Conn().Close(unlock) // the lock goes with the session
		}
	}()
	sent, left, err = s.pass(ctx, conn, v)
	return sent, left, true, err
}

// pass looks at what was not known to be acked, page by page, sends what is due, and writes down what is known then.
func (s *sweeper) pass(ctx context.Context, conn *pgxpool.Conn, v sight) (sent, left int, err error) {
	o := s.outbox
	begin := time.Now()
	tally := tally{outbox: o, conn: conn, sight: v}
	seen, again := v.now.xmax, slices.Clone(v.now.xip)
	after := owed{}
	for first := true; ; first = false {
		size := s.page
		hurried := o.hurry.all()
		page, err := s.owed(ctx, conn, v.known, after, size, hurried)
		if err != nil {
			return sent, left, err
		}
		full := len(page) == size
		whole := first && !full
		if whole {
			o.hurry.settle(hurried, page)
		}
		if err := tally.page(ctx, page, whole); err != nil && ctx.Err() == nil {
			o.log.Warn("what is owed can't be counted", "error", err) // it is sent all the same
		}
		acked, err := s.send(ctx, conn, page)
		sent += len(acked)
		left += len(page) - len(acked)
		tally.sent += len(acked)
		if err != nil {
			s.page = min(carefulPage, o.config.SweepPage)
			return sent, left, err
		}
		if len(acked) > 0 {
			s.page = min(4*s.page, o.config.SweepPage)
		}
		for _, row := range page {
			if !acked[row.event.ID] {
				again = append(again, row.xid)
			}
		}
		if !full {
			break
		}
		after = page[len(page)-1]
		// What is too young will be due in a moment; what comes after it, perhaps of the same stream, must not overtake.
		if slices.ContainsFunc(page, func(row owed) bool { return !row.due }) {
			seen = min(seen, after.xid)
			break
		}
		// On to the next page, also if nothing of this one could be sent: others must not wait behind what the broker
		// rejects.
	}
	if sent == 0 && left >= o.config.SweepPage {
		s.rest = time.Now().Add(min(10*time.Since(begin), longestVain))
	}
	k := learned(seen, again)
	changed := len(v.known.again) > 0 && !slices.Equal(k.again, v.known.again)
	if _, err := conn.Exec(ctx, o.queries.Get("Seen"), k.seen, k.again, k.mark(), changed); err != nil {
		return sent, left, fmt.Errorf("write down how far the sweep is: %w", err)
	}
	return sent, left, nil
}

// longestVain is the longest rest after a pass over much that could not be sent.
const longestVain = 10 * time.Second

// owed is a row without an ack. Its event has headers and body if it is due.
type owed struct {
	xid   int64
	due   bool
	age   time.Duration
	event rocketflow.Event
}

// owed reads the next rows after one. Those of hurried are due, however young.
func (s *sweeper) owed(ctx context.Context, conn *pgxpool.Conn, k knowledge, after owed, limit int, hurried []uuid.UUID) ([]owed, error) {
	o := s.outbox
	rows, err := conn.Query(ctx, o.queries.Get("Owed"), k.seen, k.again, after.xid, after.event.ID, limit, o.config.SweepGrace, hurried)
	if err != nil {
		return nil, fmt.Errorf("find owed events: %w", err)
	}
	page, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (owed, error) {
		var (
			r       owed
			seconds float64
			headers []byte
			e       = &r.event
		)
		err := row.Scan(&r.xid, &r.due, &seconds, &e.ID, &e.Source, &e.Topic, &e.Type, &e.Subject, &e.Sequence, &e.Previous, &e.Time, &e.ContentType, &headers, &e.Body)
		if err != nil {
			return r, err
		}
		if err := stored.SetHeaders(e, headers); err != nil {
			return r, err
		}
		r.age = time.Duration(seconds * float64(time.Second))
		e.Database = s.database
		return r, nil
	})
	if err != nil {
		return nil, fmt.Errorf("find owed events: %w", err)
	}
	return page, nil
}

// send has the relay send what is due of a page, at most DrainRate, and acks what was sent. An error means that it is no
// use to go on now.
func (s *sweeper) send(ctx context.Context, conn *pgxpool.Conn, page []owed) (acked map[uuid.UUID]bool, err error) {
	o := s.outbox
	due, release, err := s.claim(ctx, conn, page)
	defer release()
	if err != nil || len(due) == 0 {
		return nil, err
	}
	// Rows come by transaction id, which is not the order of a stream.
	slices.SortStableFunc(due, func(a, b rocketflow.Event) int { return cmp.Compare(place(a), place(b)) })
	var (
		mu      sync.Mutex
		sent    []uuid.UUID
		away    error
		pending sync.WaitGroup
	)
	gone := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return away != nil
	}
	for _, e := range due {
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
				s.rejections.add(e, err, o.config.Clock.Now())
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
		_, err := conn.Exec(write, o.queries.Get("Ack"), sent)
		o.listener.Acked(AckedInfo{IDs: sent, Took: time.Since(begin), Err: err})
		if err != nil {
			return nil, fmt.Errorf("ack swept events: %w", err)
		}
	}
	acked = make(map[uuid.UUID]bool, len(sent))
	for _, id := range sent {
		acked[id] = true
	}
	if away != nil {
		return acked, fmt.Errorf("send owed events: %w", away)
	}
	return acked, ctx.Err()
}

// claim returns what is due of a page and not being sent otherwise: while a check is answered with commit, or the answer
// is being written down, the sweep must not send the event too, nor the other way round.
func (s *sweeper) claim(ctx context.Context, conn *pgxpool.Conn, page []owed) (due []rocketflow.Event, release func(), err error) {
	o := s.outbox
	var ids []uuid.UUID
	events := map[uuid.UUID]rocketflow.Event{}
	for _, row := range page {
		if row.due && !s.rejections.rest(row.event, o.config.Clock.Now()) && s.checking.begin(row.event.ID) {
			ids = append(ids, row.event.ID)
			events[row.event.ID] = row.event
		}
	}
	release = func() {
		for _, id := range ids {
			s.checking.end(id)
		}
	}
	if len(ids) == 0 {
		return nil, release, nil
	}
	// A check may have been answered after the page was read.
	rows, err := conn.Query(ctx, o.queries.Get("Unacked"), ids)
	if err != nil {
		return nil, release, fmt.Errorf("claim owed events: %w", err)
	}
	unacked, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return nil, release, fmt.Errorf("claim owed events: %w", err)
	}
	for _, id := range unacked {
		due = append(due, events[id])
	}
	return due, release, nil
}

// place orders events: a sequence is a time in microseconds, too.
func place(e rocketflow.Event) int64 {
	if e.Ordered() {
		return e.Sequence
	}
	return e.Time.UnixMicro()
}
