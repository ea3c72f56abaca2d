package outbox

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
	"github.com/rocketflow/rocketflow/internal/handling"
	"github.com/rocketflow/rocketflow/internal/lazytx"
	"github.com/rocketflow/rocketflow/internal/wire"
)

// publication is one commit of events, from the first event that a transaction publishes until the broker has them all or
// they are left to the relay or the sweep. Its steps, in order:
//
//	add       events are kept in memory
//	record    their rows are inserted, with the next sequences of their streams
//	reserve   the path is chosen and capacity in flight is reserved
//	prepare   half messages are stored at the broker (half-message path)
//	commit    Postgres commits
//	finish    it committed: half messages are committed, and the relay gets the events that have none
//	abandon   it did not commit: half messages are rolled back
//	unknown   the outcome is unknown: nothing is ended; check-backs and the sweep decide by the rows
//
// Exactly one of the last three follows a commit. Where Publish inserts rows itself, record comes with each add. A joined
// transaction may not be committed when its Commit returns nil, so it reserves and prepares nothing and ends with
// finishVisible (join.go).
// A publication belongs to one transaction and is not safe for concurrent use.
type publication struct {
	outbox *Outbox
	rows   rowSource
	base   pgx.Tx     // the transaction; nil if it is one of database/sql
	lazy   *lazytx.Tx // base, if the outbox has begun it; nil if it is joined
	watch  streamWatch

	events    []rocketflow.Event
	unordered map[uuid.UUID]bool      // of events that take no place in a stream
	causes    map[uuid.UUID]handledBy // of events that a handler published
	recorded  int                     // events[:recorded] have their rows

	services    *services // from reserve on, like what follows
	reservation *reservation
	halves      []half // nil on the relay path
}

// half is an event and its half message, if it could be stored.
type half struct {
	event    rocketflow.Event
	message  broker.Half
	prepared bool

	began, stored time.Time // of the request that stored the half message
}

// add appends events that take part in the transaction from now on. ctx is the context of Publish.
func (p *publication) add(ctx context.Context, events []rocketflow.Event, unordered []bool) {
	call := handling.From(ctx)
	if call != nil && p.causes == nil {
		p.causes = map[uuid.UUID]handledBy{}
	}
	for i, e := range events {
		if call != nil {
			p.causes[e.ID] = handledBy{call.Event.ID, call.Consumer}
		}
		if unordered[i] {
			if p.unordered == nil {
				p.unordered = map[uuid.UUID]bool{}
			}
			p.unordered[e.ID] = true
		} else {
			p.watch.enter(e)
		}
		p.events = append(p.events, e)
	}
}

// truncate drops the events after the first n. Of the others at most the first recorded have their rows.
func (p *publication) truncate(n, recorded int) {
	p.events = p.events[:min(n, len(p.events))]
	p.recorded = min(p.recorded, recorded, len(p.events))
}

// record inserts the rows of the events that have none, in one round trip, and completes the events with what the database
// assigned.
func (p *publication) record(ctx context.Context) error {
	events := p.events[p.recorded:]
	if len(events) == 0 {
		return nil
	}
	running := p.outbox.current()
	if running == nil {
		return ErrNotStarted
	}
	sql, args, err := p.outbox.insertion(events, p.unordered, p.causes)
	if err == nil {
		err = p.rows.read(ctx, sql, args, func(rows resultRows) error { return complete(rows, events) })
	}
	if err != nil {
		return fmt.Errorf("record events: %w", err)
	}
	p.setRecorded(running)
	return nil
}

// recordAndCommit inserts the rows and commits in one round trip, which includes BEGIN if nothing was sent yet.
// open reports that the transaction is still open and must be rolled back.
func (p *publication) recordAndCommit(ctx context.Context) (open bool, err error) {
	sql, args, err := p.outbox.insertion(p.events, p.unordered, p.causes)
	if err != nil {
		return true, fmt.Errorf("record events: %w", err)
	}
	batch := &pgx.Batch{}
	batch.Queue(sql, args...).Query(func(rows pgx.Rows) error {
		defer rows.Close()
		return complete(rows, p.events)
	})
	if open, err := p.lazy.CommitWith(ctx, batch); err != nil {
		if open {
			err = fmt.Errorf("record events: %w", err)
		}
		return open, err
	}
	p.setRecorded(p.services)
	return false, nil
}

// setRecorded notes that all events have their rows.
func (p *publication) setRecorded(running *services) {
	events := p.events[p.recorded:]
	for i := range events {
		events[i].Database = running.database
	}
	p.recorded = len(p.events)
	p.outbox.listener.Recorded(events)
}

// reserve chooses the path. release must be called if it succeeds.
func (p *publication) reserve() error {
	if p.services = p.outbox.current(); p.services == nil {
		return ErrNotStarted
	}
	p.reservation = p.services.paths.reserve(p.events, p.watch.anyHot())
	return nil
}

// commit takes the publication from reserve to its end, and commits the transaction. nil means that it is committed; the
// error matches rocketflow.ErrCommitUnknown if the outcome is unknown.
func (p *publication) commit(ctx context.Context) error {
	defer p.leaveStreams()
	if err := p.reserve(); err != nil {
		return p.rollback(ctx, err)
	}
	defer p.reservation.release()
	if p.reservation.half {
		if err := p.record(ctx); err != nil {
			return p.rollback(ctx, err)
		}
		if p.reservation.keepHalf(p.watch.contended(p.events)) {
			if err := p.prepare(ctx); err != nil {
				p.abandon(ctx)
				return p.rollback(ctx, err)
			}
		}
	}
	open, err := p.commitDatabase(ctx)
	switch {
	case open:
		return p.rollback(ctx, err)
	case err == nil:
		p.finish(ctx)
	case lazytx.NotCommitted(err):
		p.abandon(ctx)
	default:
		p.unknown()
	}
	return commitError(err)
}

// commitDatabase commits the transaction. Rows that are still to be inserted go in the same round trip, if they can. open
// reports that COMMIT was not run.
func (p *publication) commitDatabase(ctx context.Context) (open bool, err error) {
	if p.recorded == 0 && !p.lazy.CommitsSeparately() {
		return p.recordAndCommit(ctx)
	}
	if err := p.record(ctx); err != nil {
		return true, err
	}
	return false, p.base.Commit(ctx)
}

// rollback rolls the transaction back because of cause, which it returns; nil: at the caller's request.
func (p *publication) rollback(ctx context.Context, cause error) error {
	p.leaveStreams()
	err := p.base.Rollback(ctx)
	if cause == nil {
		return err
	}
	return errors.Join(cause, err)
}

// leaveStreams notes that the transaction holds no row of its streams any more. It may be called again.
func (p *publication) leaveStreams() { p.watch.leave(p.events) }

// prepare stores the half messages concurrently. An event whose half message can't be stored in time is left to the relay, so
// an outage of the broker never fails a transaction; an error means that the broker will never accept an event.
func (p *publication) prepare(ctx context.Context) error {
	o := p.outbox
	p.halves = make([]half, len(p.events))
	for i, e := range p.events {
		p.halves[i].event = e
	}
	// A caller whose deadline is near must have time left to commit.
	limit := o.config.HalfTimeout
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline)/2)
	}
	begin := time.Now()
	defer func() { p.watch.prepared(time.Since(begin)) }()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	refused := make([]error, len(p.halves))
	failed := make([]error, len(p.halves))
	inParallel(len(p.halves), func(i int) {
		h := &p.halves[i]
		begin := time.Now()
		var err error
		h.message, err = p.services.producer.Prepare(ctx, wire.MessageOf(h.event))
		took := time.Since(begin)
		h.prepared, h.began, h.stored = err == nil, begin, begin.Add(took)
		o.listener.Prepared(PreparedInfo{Event: h.event, Took: took, Err: err})
		switch {
		case err == nil:
		case errors.Is(err, broker.ErrTooLarge) || errors.Is(err, broker.ErrIllegal):
			refused[i] = fmt.Errorf("publish %s to %s: %w", h.event.Type, h.event.Topic, err)
		case errors.Is(err, broker.ErrRejected):
		// Not by what err wraps: a broker whose heartbeat took too long fails at once with that heartbeat's error.
		case took < o.config.HalfTimeout/4 && ctx.Err() != nil:
			failed[i] = errInconclusive // the caller's context ended before HalfTimeout
		default:
			failed[i] = err
		}
	})
	if err := firstFailure(failed); err != nil {
		p.reservation.report(err) // before the commit, so that an open breaker spares other transactions the wait
	}
	return errors.Join(refused...)
}

// finish sends the events of a committed transaction. Besides check-backs nothing else may commit a half message: its row
// must be known to be committed.
func (p *publication) finish(ctx context.Context) {
	p.leaveStreams()
	p.outbox.listener.Committed(p.events)
	if p.halves == nil {
		p.services.relay.offer(p.events...)
		return
	}
	p.commitHalves(ctx)
}

// commitHalves commits the half messages, those of one stream one after the other so that they keep their order. The relay
// gets the events whose half message is missing or could not be committed.
func (p *publication) commitHalves(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.outbox.config.EndTimeout)
	defer cancel()
	failed := make([]error, len(p.halves))
	committed := time.Now()
	end := func(i int) {
		h := p.halves[i]
		// While the breaker is open the response would be waited for in vain. A later check-back finds the row.
		if !h.prepared || p.services.paths.breaker.open() {
			p.services.relay.offer(h.event)
			return
		}
		begin := time.Now()
		err := p.services.producer.Commit(ctx, h.message)
		took := time.Since(begin)
		p.outbox.listener.Ended(EndedInfo{Event: h.event, Took: took, Err: err})
		if p.outbox.hasSent {
			p.outbox.listener.Sent(SentInfo{
				Events: []rocketflow.Event{h.event}, Errs: []error{err}, Path: HalfMessages,
				Began: h.began, Stored: h.stored, Committed: committed, Ended: begin.Add(took),
			})
		}
		if err != nil {
			failed[i] = err
			p.services.relay.offer(h.event)
			return
		}
		p.services.acks.add(acked{h.event.ID, byHalfMessage})
	}
	streams := byStream(p.halves)
	inParallel(len(streams), func(i int) {
		for _, place := range streams[i] {
			end(place)
		}
	})
	p.reservation.report(firstFailure(failed))
}

// abandon ends a publication that is known not to be committed. It rolls back its half messages; without that the broker
// would check back.
func (p *publication) abandon(ctx context.Context) {
	if len(p.events) == 0 {
		return
	}
	if p.halves != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.outbox.config.EndTimeout)
		defer cancel()
		inParallel(len(p.halves), func(i int) {
			if p.halves[i].prepared && !p.services.paths.breaker.open() {
				_ = p.services.producer.Rollback(ctx, p.halves[i].message) // if it fails, the broker will check back
			}
		})
	}
	p.outbox.listener.RolledBack(RolledBackInfo{Events: p.events})
}

// unknown ends a publication whose outcome is unknown. No half message is ended: check-backs and the sweep decide by the
// rows.
func (p *publication) unknown() { p.outbox.leaveToSweep(p.events) }

// leaveToSweep reports events that may or may not be committed; the sweep sends those that are.
func (o *Outbox) leaveToSweep(events []rocketflow.Event) {
	if len(events) > 0 {
		o.listener.RolledBack(RolledBackInfo{Events: events, Unknown: true})
	}
}

// commitError completes an error of COMMIT: it matches rocketflow.ErrCommitUnknown unless it is known that Postgres didn't
// commit.
func commitError(err error) error {
	if err == nil || lazytx.NotCommitted(err) {
		return err
	}
	return fmt.Errorf("%w: %w", rocketflow.ErrCommitUnknown, err)
}

// firstFailure returns a failure of the broker, if there is one, else errInconclusive, if that is among errs, else nil.
func firstFailure(errs []error) error {
	var found error
	for _, err := range errs {
		if err != nil && (found == nil || errors.Is(found, errInconclusive)) {
			found = err
		}
	}
	return found
}

// byStream returns the indexes of the halves of each stream, in order; an event without order stands alone.
func byStream(halves []half) [][]int {
	streams := make([][]int, 0, len(halves))
	if len(halves) == 1 {
		return append(streams, []int{0})
	}
	indexOf := map[rocketflow.Stream]int{}
	for i, h := range halves {
		s := h.event.Stream()
		if n, ok := indexOf[s]; ok && h.event.Ordered() {
			streams[n] = append(streams[n], i)
			continue
		}
		indexOf[s] = len(streams)
		streams = append(streams, []int{i})
	}
	return streams
}

// inParallel calls fn with 0 to n-1 concurrently and waits for all calls.
func inParallel(n int, fn func(int)) {
	var group sync.WaitGroup
	for i := range n - 1 {
		group.Go(func() { fn(i) })
	}
	if n > 0 {
		fn(n - 1)
	}
	group.Wait()
}
