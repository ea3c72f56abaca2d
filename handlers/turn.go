package handlers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/stored"
)

var (
	errTooOld     = errors.New("too old to be checked for duplication")
	errTooLate    = errors.New("came after its followers had been accepted without it")
	errConflict   = errors.New("another event with other content has the same source and id, or the same place in the stream")
	errPaused     = errors.New("the consumer is paused")
	errSuperseded = errors.New("its stream has gone on without it: an event after it is linked to one before it, as after a failover of its publisher's database that lost commits")
)

// candidate is an event of a turn, with its decision and outcome.
type candidate struct {
	event  rocketflow.Event
	item   *item         // set: the broker delivered it
	row    *inbox.Record // set: it was parked
	stream *inbox.LockedStream

	decision   decision
	took       time.Duration
	parked     *inbox.Parking // how it waits, if the turn parked or rescheduled it
	forks      bool           // it runs before the parked events of its stream
	superseded []rocketflow.Event
}

// attempt returns which attempt at the event a call of its handler is.
func (c *candidate) attempt() int { return c.failures() + 1 }

// failures returns the recorded number of failed attempts at the event.
func (c *candidate) failures() int {
	if c.row == nil {
		return 0
	}
	return c.row.Attempts
}

// source is where the events of a turn come from.
type source int

const (
	delivered source = iota // the broker delivered them to a lane
	due                     // one parked event that is due
	followers               // the first parked events of a stream whose position has moved
)

// turn is one transaction of a lane. It locks the streams of some events and loads their rows, decides about each event in
// the order of its stream, runs handlers, stores the outcomes, and reports them after the commit. All events are handled,
// parked and settled by turns, except for [consumer.parkBusy].
//
// A turn of a single event whose handler has failed before (failure) doesn't call it again, but records the outcome.
//
// A turn reads in its transaction what is paused, after it has locked the streams: no handler is called in a turn that begins after a
// pause has committed. If the whole consumer is paused, execute returns errPaused, and nothing has happened.
//
// It ends early, and commits what ran, when the consumer stops and when its time is up; the decision about the events that
// are left is undecided.
type turn struct {
	*consumer
	source     source
	parked     parkedKey // the event that is due, or the stream of the followers
	limit      int       // of events
	failure    *outcome
	candidates []*candidate

	now          time.Time
	pauses       inbox.Pauses
	streams      []*inbox.LockedStream
	forked       map[*inbox.LockedStream]bool // streams that went past parked events in this turn
	recorded     map[inbox.Route]bool         // routes without a handler here that other processes have recorded
	entries      map[inbox.Key]inbox.Entry    // rows of the inbox
	toRun        map[inbox.Key]bool           // events whose decision is run
	parkedBefore map[inbox.Key]bool           // delivered events that are parked already
	failed       *candidate                   // the event whose handler returned an error
	ran          []rocketflow.Event           // events whose handlers ran
	settled      []rocketflow.Event           // events that were discarded
}

// turnTime is the total time of a turn's handlers after which it calls no further handler and commits: its transaction holds
// locks, and other events wait.
const turnTime = time.Second

// deliveredTurn returns a turn for deliveries. One whose handler has failed before must be the only one.
func (c *consumer) deliveredTurn(items []*item) *turn {
	t := &turn{consumer: c, source: delivered, limit: len(items), failure: items[0].failure}
	for _, it := range items {
		t.candidates = append(t.candidates, &candidate{event: it.event, item: it})
	}
	return t
}

// dueTurn returns a turn for a parked event that is due. failure is nil, or the outcome of an earlier turn, to be recorded.
func (c *consumer) dueTurn(k parkedKey, failure *outcome) *turn {
	return &turn{consumer: c, source: due, parked: k, limit: 1, failure: failure}
}

// followersTurn returns a turn for the first parked events of a stream.
func (c *consumer) followersTurn(k parkedKey, limit int) *turn {
	return &turn{consumer: c, source: followers, parked: k, limit: limit}
}

// execute runs the turn's transaction. After an error it is rolled back. An error that isn't ctx's was caused by one of its
// events: by failed, if that is set.
func (t *turn) execute(ctx context.Context) error {
	given := t.candidates
	begin := func(ctx context.Context, tx pgx.Tx) error {
		t.candidates = given
		t.streams, t.failed, t.ran, t.settled = nil, nil, nil, nil
		return t.run(ctx, tx)
	}
	var err error
	if t.failure != nil {
		err = t.untilCommitted(ctx, t.replace, begin)
	} else {
		conflicts := maxConflicts
		if t.limit > 1 {
			conflicts = 0 // fewer events hold fewer locks, so they conflict less
		}
		err = t.inPublishingTransaction(ctx, conflicts, func(ctx context.Context, tx rocketflow.Tx) error { return begin(ctx, tx) })
	}
	if err == nil {
		t.report()
	}
	return err
}

// replace changes what a turn of one event stores: Postgres can't store it as it is.
func (t *turn) replace(why error) {
	if t.source == delivered {
		t.candidates[0].item.cutDown(why)
		return
	}
	failure := *t.failure
	failure.err = errors.New(printable.ASCII(t.failure.err.Error()))
	t.failure = &failure
}

func (t *turn) run(ctx context.Context, tx pgx.Tx) error {
	if err := t.load(ctx, tx); err != nil {
		return err
	}
	begin := time.Now()
	for i, c := range t.candidates {
		if i > 0 && (time.Since(begin) > turnTime || t.isStopping()) {
			for _, rest := range t.candidates[i:] {
				rest.decision = undecided
			}
			break
		}
		if c.decision = decide(t.situation(i), t.conditions(c.event)); c.decision == undecided {
			if t.source != delivered {
				break // the events behind a parked one that can't run now stay parked
			}
			continue
		}
		if err := t.apply(ctx, tx, c); err != nil {
			t.failed = c
			return err
		}
	}
	if err := t.save(ctx, tx); err != nil {
		return err
	}
	if t.failure == nil {
		t.cfg.Listener.Ran(BatchInfo{t.name, t.ran})
	}
	return nil
}

// situation returns the situation of the turn's i-th event.
func (t *turn) situation(i int) situation {
	c := t.candidates[i]
	k := inbox.KeyOf(c.event)
	s := situation{
		event: c.event, row: c.row, follows: c.row != nil && i > 0, unreadable: c.item != nil && c.item.unreadable != nil,
		alreadyParked: t.parkedBefore[k], repeated: t.toRun[k], failure: t.failure,
	}
	if c.stream != nil {
		s.position, s.forked = c.stream.Position, t.forked[c.stream]
	}
	if entry, ok := t.entries[k]; ok {
		s.entry = &entry
	}
	return s
}

func (t *turn) conditions(e rocketflow.Event) conditions {
	topic := t.topicsRead[e.Topic]
	return conditions{
		now: t.now, maxAhead: t.cfg.MaxAhead, inboxRetention: t.cfg.InboxRetention, positionRetention: t.cfg.PositionRetention,
		adoptAfter: t.opts.AdoptAfter, begin: topic.Begin, born: topic.Born,
		handled: t.handler(e) != nil, recorded: t.recorded[routeOf(e)], paused: t.failure == nil && t.pauses.Hold(e),
	}
}

// apply carries out the decision about an event: it runs the handler, or notes how the event is parked or settled. It returns
// the handler's error.
func (t *turn) apply(ctx context.Context, tx pgx.Tx, c *candidate) error {
	switch c.decision {
	case run:
		if err := t.handle(ctx, tx, c); err != nil {
			return err
		}
		t.ran = append(t.ran, c.event)
	case discarded:
		t.settled = append(t.settled, c.event)
	case skip:
	default:
		t.park(c)
		return nil
	}
	if c.stream != nil {
		t.advance(c)
	}
	return nil
}

// handle calls the handler of an event.
func (t *turn) handle(ctx context.Context, tx pgx.Tx, c *candidate) (err error) {
	if inbox.UsesInbox(c.event) {
		t.toRun[inbox.KeyOf(c.event)] = true
	}
	if c.row != nil {
		t.cfg.Listener.Retried(RetriedInfo{t.info(c.event), c.attempt()})
	}
	c.took, err = t.call(ctx, tx.(rocketflow.Tx), c.event, c.attempt())
	return err
}

// park notes how an event is to be parked.
func (t *turn) park(c *candidate) {
	if c.parked = t.parking(c); c.parked == nil {
		return
	}
	switch c.decision {
	case conflict:
		c.event.ID = digestID(c.event.Source, c.event.ID.String(), strconv.FormatInt(stored.Digest(c.event), 10))
		fallthrough
	case tooLate, tooFarAhead:
		c.event = withoutOrder(c.event)
	case behind, unreadable:
	default:
		if c.stream != nil && c.row == nil {
			c.stream.SetHead(c.event)
		}
	}
}

// parking returns how an event is to be parked; nil: it isn't parked, or its row stays as it is.
func (t *turn) parking(c *candidate) *inbox.Parking {
	e := c.event
	dead := func(err error) *inbox.Parking { p := inbox.Dead(err); return &p }
	switch c.decision {
	case failed:
		p := t.failure.parking(c.failures())
		return &p
	case early:
		switch {
		case c.row != nil:
			return &inbox.Parking{Reason: inbox.Gap, Attempts: c.row.Attempts, After: gapRecheck(c.row.Waited), Err: c.row.Err()}
		case t.opts.GapWait < 0 || !c.item.until.IsZero() && !t.cfg.Clock.Now().Before(c.item.until):
			return &inbox.Parking{Reason: inbox.Gap, After: gapRecheck(0)}
		}
	case behind:
		return &inbox.Parking{Reason: inbox.Gap, After: inbox.UntilWoken}
	case unhandled:
		err := fmt.Errorf("no process that met it has the handler of %s on topic %s", cmp.Or(e.Type, "messages without a tag"), e.Topic)
		return &inbox.Parking{Reason: inbox.Unhandled, Attempts: c.failures(), After: inbox.UntilWoken, Err: err}
	case paused:
		p := &inbox.Parking{Reason: inbox.Paused, Attempts: c.failures(), After: inbox.UntilWoken}
		if c.row != nil {
			p.Err = c.row.Err()
		}
		return p
	case tooOld:
		return dead(errTooOld)
	case tooLate:
		return dead(errTooLate)
	case tooFarAhead:
		return dead(fmt.Errorf("its sequence %d lies more than %v ahead of Postgres' clock (%s): forged, or its publisher's clock is wrong",
			e.Sequence, t.cfg.MaxAhead, t.now.UTC().Format(time.RFC3339)))
	case conflict:
		return dead(fmt.Errorf("%w (id %s)", errConflict, e.ID))
	case unreadable:
		return dead(c.item.unreadable)
	}
	return nil
}

// advance moves a stream's position past an event. If parked events are passed by it, the stream must be read anew before
// more of it runs.
func (t *turn) advance(c *candidate) {
	at := c.stream
	c.forks = at.Last < at.Head && at.Head < c.event.Sequence
	t.forked[at] = t.forked[at] || c.forks
	at.Last, at.Failed = c.event.Sequence, 0
	if c.row != nil {
		at.Failed = c.row.Attempts
	}
}

// moved reports whether the turn has advanced a position.
func (t *turn) moved() bool {
	for _, s := range t.streams {
		if s.Last != s.First {
			return true
		}
	}
	return false
}

// index returns the index of a candidate in the turn; -1: it isn't part of it.
func (t *turn) index(c *candidate) int { return slices.Index(t.candidates, c) }

func routeOf(e rocketflow.Event) inbox.Route { return inbox.Route{Topic: e.Topic, Type: e.Type} }
