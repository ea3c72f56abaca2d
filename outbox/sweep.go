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

// sweeper finds owed events that are older than SweepGrace and sends them: events of a process that died, of half messages
// whose end was lost, of a broker that lost its disk, and those that didn't fit into the relay's memory. One process at a
// time sweeps, by a lease; all processes read its state.
//
// It reads rows by the id of their transaction, each once, except those that could not be sent or whose transaction was
// still open. A watermark by time would miss rows that become visible late because their transaction was open for long.
// Events that the broker rejects are recorded in a table of their own, so that a pass doesn't read them again.
type sweeper struct {
	outbox   *Outbox
	database string
	relay    *relay
	acks     *acker
	checking *inProgress
	holder   uuid.UUID // of the lease
	group    background.Group

	// Touched by one pass at a time.
	drain       *rate.Limiter
	pageRows    int       // rows to read at once: few while the broker is away
	pausedUntil time.Time // no pass before then: the last one took long and sent nothing
	unwritten   []acked   // sent, but not acknowledged yet because Postgres failed: nothing else is sent before that
	counted     time.Time // when the rejected events were last counted
	failures    failureStreak
}

// probePageRows is the size of a page after a pass that could not reach the broker.
const probePageRows = 16

// leaseTTL is how long the lease lasts unless it is renewed: so long no process sweeps after the sweeping one was frozen or
// cut off. With a long SweepInterval it is longer.
const leaseTTL = 10 * time.Second

func (o *Outbox) startSweep(r *services) *sweeper {
	s := &sweeper{
		outbox: o, database: r.database, relay: r.relay, acks: r.acks, checking: &r.checking, holder: uuid.New(),
		drain:    rate.NewLimiter(rate.Limit(o.config.DrainRate), max(1, o.config.DrainRate/20)),
		pageRows: o.config.SweepPage,
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

// stop ends the running pass and waits for it. Its queries end with its context, so that takes no time.
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
		log.Warn("the sweep ended early; owed events wait for the next pass", keySent, sent, keyError, err, keyRetryAfter, s.outbox.config.SweepInterval)
	} else if err == nil {
		s.failures.end(log, "the sweep is complete again")
	}
	if ours {
		s.outbox.listener.Swept(SweptInfo{Sent: sent, Left: left, Took: time.Since(begin), Err: err})
	}
}

// errReadOnly is returned for a demoted primary, a replica, or a server that is set to read only.
var errReadOnly = errors.New("the database takes no writes, so events aren't sent, as they could not be acknowledged")

// errUnacked is returned while acknowledgements can't be inserted.
var errUnacked = errors.New("acknowledgements can't be written, so no further events are sent until they can")

// sweep makes one pass, unless another process holds the lease; then it only reads that one's count. ours reports that this
// process made the pass.
func (s *sweeper) sweep(ctx context.Context) (sent, left int, ours bool, err error) {
	o := s.outbox
	state, err := o.readSweepState(ctx)
	if err != nil {
		return 0, 0, true, err
	}
	o.updateBacklog(state)
	if !state.writable {
		return 0, 0, true, errReadOnly
	}
	if time.Now().Before(s.pausedUntil) {
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
	sent, left, err = s.pass(pass, state)
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

// release ends the lease, so that another process can sweep at once. If it fails, the lease expires.
func (s *sweeper) release() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = lease.Release(ctx, s.outbox.config.Pool, s.outbox.config.Schema, sweepLease, s.holder)
}

var errLeaseLost = errors.New("the lease of the sweep was lost because this process was held up for too long: another one sweeps")

// keepLease renews the lease until end is called, and cancels the pass's context when the lease is lost.
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

// pass reads the owed events page by page, sends those that are due, and writes the sweep's progress.
func (s *sweeper) pass(ctx context.Context, state sweepState) (sent, left int, err error) {
	o := s.outbox
	begin := time.Now()
	if sent, err = s.retryRejected(ctx, state); err != nil {
		return sent, left, err
	}
	count := backlogCount{outbox: o, state: state}
	// A transaction that is in progress now may commit rows later: the watermark must not pass it.
	seen, recheck := state.now.xmax, slices.Clone(state.now.xip)
	after := owedRow{}
	for first := true; ; first = false {
		size := s.pageRows
		expedited := o.expedited.all()
		page, err := s.readPage(ctx, state.progress, after, size)
		if err != nil {
			return sent, left, err
		}
		full := len(page) == size
		all := first && !full
		if all {
			o.expedited.dropNotOwed(expedited, page)
		}
		if err := count.page(ctx, page, all); err != nil && ctx.Err() == nil {
			o.log.Warn("owed events can't be counted, so the backlog is an old estimate; they are sent all the same", keyError, err)
		}
		due := make([]owedRow, 0, len(page))
		young := false
		for _, row := range page {
			if row.age > o.config.SweepGrace || expedited[row.event.ID] {
				due = append(due, row)
			} else {
				young = true
			}
		}
		out, err := s.send(ctx, due)
		sent += len(out.acked)
		left += len(page) - len(out.acked) - len(out.rejected)
		count.sent += len(out.acked) + len(out.rejected)
		if err != nil {
			s.pageRows = min(probePageRows, o.config.SweepPage)
			return sent, left, err
		}
		if len(out.acked) > 0 {
			s.pageRows = min(4*s.pageRows, o.config.SweepPage)
		}
		for _, row := range page {
			if id := row.event.ID; !out.acked[id] && !out.rejected[id] {
				recheck = append(recheck, row.xid)
			}
		}
		if !full {
			break
		}
		after = page[len(page)-1]
		// An event that is too young will be due in a moment. Later ones, perhaps of the same stream, must not overtake it.
		if young {
			seen = min(seen, after.xid)
			break
		}
		// The next page follows even if nothing of this one could be sent: other events must not wait behind it.
	}
	if sent == 0 && left >= o.config.SweepPage {
		s.pausedUntil = time.Now().Add(min(10*time.Since(begin), maxSweepPause))
	}
	progress := newSweepProgress(seen, recheck)
	changed := len(state.progress.recheck) > 0 && !slices.Equal(progress.recheck, state.progress.recheck)
	if _, err := o.db().Exec(ctx, o.queries.Get("WriteProgress"), progress.seen, progress.recheck, progress.watermark(), changed, sweepLease, s.holder.String()); err != nil {
		return sent, left, fmt.Errorf("write the sweep's progress: %w", err)
	}
	return sent, left, s.countRejected(ctx, state)
}

// maxSweepPause bounds the pause after a pass that read many events and sent none.
const maxSweepPause = 10 * time.Second
