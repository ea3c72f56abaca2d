package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/time/rate"

	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/lease"
)

// sweeper finds what is owed and older than the grace, and sends it: what a process that died, a lost end, a broker
// that lost its disk or a full memory left behind. One process at a time sweeps, by a lease; all read what it knows.
//
// It looks at rows by the id of their transaction, each once, except those that could not be sent or whose transaction
// was still open. A mark by time would step over rows that become visible late because their transaction was open for
// long. What the broker rejects is noted in a table of its own, so that a pass doesn't read it again.
type sweeper struct {
	outbox   *Outbox
	database string
	relay    *relay
	acks     *acker
	checking *inProgress
	holder   uuid.UUID // of the lease
	group    background.Group

	// Touched by one pass at a time.
	drain     *rate.Limiter
	page      int         // rows to read at once: few while the broker is away
	rest      time.Time   // until then no pass: the last was long and in vain
	unwritten []uuid.UUID // sent, but the ack could not be written: nothing else is sent before it is
	counted   time.Time   // when the rejected were last counted
	failures  failureStreak
}

// carefulPage is the page of a sweep that doesn't know whether the broker is there.
const carefulPage = 16

// leaseTTL is how long nobody sweeps after the sweeping process was frozen or cut off, unless SweepInterval is long.
const leaseTTL = 10 * time.Second

func (o *Outbox) startSweep(r *services) *sweeper {
	s := &sweeper{
		outbox: o, database: r.database, relay: r.relay, acks: r.acks, checking: &r.checking, holder: uuid.New(),
		drain: rate.NewLimiter(rate.Limit(o.config.DrainRate), max(1, o.config.DrainRate/20)),
		page:  o.config.SweepPage,
	}
	if o.config.DrainRate < 0 {
		s.drain.SetLimit(rate.Inf)
	}
	_ = s.group.Start(context.Background(), func(context.Context) error {
		s.group.Go(s.run)
		return nil
	})
	return s
}

// stop ends the pass that is under way and waits for it. The queries of a pass end with its context, so that takes no time.
func (s *sweeper) stop() { _ = s.group.Stop(context.Background()) }

func (s *sweeper) run(ctx context.Context) {
	defer s.release()
	interval := s.outbox.config.SweepInterval
	background.Loop{Clock: s.outbox.config.Clock}.Run(ctx, func(ctx context.Context) time.Duration {
		begin := s.outbox.config.Clock.Now()
		s.sweepAndReport(ctx)
		// Passes begin an interval apart, however long they take.
		return min(interval, interval-s.outbox.config.Clock.Now().Sub(begin))
	})
}

func (s *sweeper) sweepAndReport(ctx context.Context) {
	log := s.outbox.log
	begin := time.Now()
	sent, left, ours, err := s.sweep(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil && s.failures.begins(err) {
		log.Warn("the sweep ended early; owed events wait for the next pass", "sent", sent, "error", err, "after", s.outbox.config.SweepInterval)
	} else if err == nil {
		s.failures.end(log, "the sweep is complete again")
	}
	if ours {
		s.outbox.listener.Swept(SweptInfo{Sent: sent, Left: left, Took: time.Since(begin), Err: err})
	}
}

// errReadOnly: a demoted primary, a replica, or a server set to read only.
var errReadOnly = errors.New("the database takes no writes: nothing is sent that could not be acked")

// errUnacked: the same for a server whose inserts fail.
var errUnacked = errors.New("acks can't be written: nothing more is sent until they can")

// sweep makes one pass, unless another process holds the lease; then it only reads what that one has counted.
func (s *sweeper) sweep(ctx context.Context) (sent, left int, ours bool, err error) {
	o := s.outbox
	v, err := o.look(ctx)
	if err != nil {
		return 0, 0, true, err
	}
	o.updateGauge(v)
	if !v.writable {
		return 0, 0, true, errReadOnly
	}
	if time.Now().Before(s.rest) {
		return 0, 0, false, nil
	}
	if held, err := s.acquire(ctx); err != nil || !held {
		return 0, 0, err != nil, err
	}
	if err := s.writeAcks(ctx); err != nil {
		return 0, 0, true, err
	}
	if s.acks.failing() {
		return 0, 0, true, errUnacked
	}
	pass, end := s.keepLease(ctx)
	defer end()
	sent, left, err = s.pass(pass, v)
	if err != nil && pass.Err() != nil && ctx.Err() == nil {
		err = context.Cause(pass)
	}
	return sent, left, true, err
}

func (s *sweeper) ttl() time.Duration { return max(leaseTTL, 3*s.outbox.config.SweepInterval) }

const sweepLease = "outbox sweep"

func (s *sweeper) acquire(ctx context.Context) (bool, error) {
	return lease.Acquire(ctx, s.outbox.config.Pool, s.outbox.config.Schema, sweepLease, s.holder, s.ttl())
}

// release lets another process go on at once. It is no harm if it fails: the lease expires.
func (s *sweeper) release() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = lease.Release(ctx, s.outbox.config.Pool, s.outbox.config.Schema, sweepLease, s.holder)
}

var errLeaseLost = errors.New("another process sweeps now: this one was held up for too long")

// keepLease renews the lease until end is called, and ends the pass's context when it is lost.
func (s *sweeper) keepLease(ctx context.Context) (pass context.Context, end func()) {
	pass, cancel := context.WithCancelCause(ctx)
	var renewal sync.WaitGroup
	renewal.Go(func() {
		for background.Sleep(pass, clock.System{}, s.ttl()/4) {
			if held, err := s.acquire(pass); err == nil && !held {
				cancel(errLeaseLost)
			}
		}
	})
	return pass, func() {
		cancel(nil)
		renewal.Wait()
	}
}

// pass looks at what was not known to be acked, page by page, sends what is due, and writes down what is known then.
func (s *sweeper) pass(ctx context.Context, v sight) (sent, left int, err error) {
	o := s.outbox
	begin := time.Now()
	if sent, err = s.retryRejected(ctx, v); err != nil {
		return sent, left, err
	}
	tally := tally{outbox: o, sight: v}
	seen, again := v.now.xmax, slices.Clone(v.now.xip)
	after := owed{}
	for first := true; ; first = false {
		size := s.page
		hurried := o.hurry.all()
		page, err := s.owed(ctx, v.known, after, size)
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
		due := make([]owed, 0, len(page))
		young := false
		for _, row := range page {
			if row.age > o.config.SweepGrace || hurried[row.event.ID] {
				due = append(due, row)
			} else {
				young = true
			}
		}
		out, err := s.send(ctx, due)
		sent += len(out.acked)
		left += len(page) - len(out.acked) - len(out.rejected)
		tally.sent += len(out.acked) + len(out.rejected)
		if err != nil {
			s.page = min(carefulPage, o.config.SweepPage)
			return sent, left, err
		}
		if len(out.acked) > 0 {
			s.page = min(4*s.page, o.config.SweepPage)
		}
		for _, row := range page {
			if id := row.event.ID; !out.acked[id] && !out.rejected[id] {
				again = append(again, row.xid)
			}
		}
		if !full {
			break
		}
		after = page[len(page)-1]
		// What is too young will be due in a moment; what comes after it, perhaps of the same stream, must not overtake.
		if young {
			seen = min(seen, after.xid)
			break
		}
		// On to the next page, also if nothing of this one could be sent: others must not wait behind it.
	}
	if sent == 0 && left >= o.config.SweepPage {
		s.rest = time.Now().Add(min(10*time.Since(begin), longestVain))
	}
	k := learned(seen, again)
	changed := len(v.known.again) > 0 && !slices.Equal(k.again, v.known.again)
	if _, err := o.config.Pool.Exec(ctx, o.queries.Get("Seen"), k.seen, k.again, k.mark(), changed, sweepLease, s.holder.String()); err != nil {
		return sent, left, fmt.Errorf("write down how far the sweep is: %w", err)
	}
	return sent, left, s.countRejected(ctx, v)
}

// longestVain is the longest rest after a pass over much that could not be sent.
const longestVain = 10 * time.Second
