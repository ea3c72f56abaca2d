package handlers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/stored"
)

var (
	errTooOld   = errors.New("too old to be checked for duplication")
	errTooLate  = errors.New("came after its followers had been accepted without it")
	errConflict = errors.New("another event with other content has the same source and id, or the same place in the stream")
	errGhost    = errors.New("its stream has gone on without it: an event after it is linked to one before it, as after a failover of its publisher's database that lost commits")
)

// candidate is an event on its way through a turn.
type candidate struct {
	event  rocketflow.Event
	item   *item         // set: the broker delivered it
	row    *inbox.Record // set: it was parked
	stream *inbox.LockedStream

	decision decision
	took     time.Duration
	parked   *inbox.Parking // how it waits, if the turn parked it or put it off
	forks    bool           // it runs before what is parked of its stream
	ghosts   []rocketflow.Event
}

// turn is one attempt at some events in one transaction: those that the broker delivered to a lane, or parked ones, of
// one stream or without order. It decides about each in the order of its stream, runs the handlers of those whose turn
// has come, and stores what became of all.
//
// It ends early, and commits what ran, when the consumer stops and when its time is up; what it did not come to is
// undecided.
type turn struct {
	*consumer
	store      inbox.Consumer
	due        *parkedKey // set: the turn is for parked events
	limit      int        // of a stream's parked events
	candidates []*candidate

	now        time.Time
	streams    []*inbox.LockedStream
	forked     map[*inbox.LockedStream]bool // whose chain went past what is parked
	recorded   map[inbox.Route]bool
	entries    map[inbox.Key]inbox.Entry
	taken      map[inbox.Key]bool // decided to run
	alreadyHas map[inbox.Key]bool // parked
	failed     *candidate         // whose handler returned an error
	ran        []rocketflow.Event
}

// turnTime is how long the handlers of a turn may take together before it commits what has run: its transaction holds
// locks, and the events behind it wait.
const turnTime = time.Second

func (c *consumer) deliveredTurn(items []*item) *turn {
	t := &turn{consumer: c, store: c.store}
	for _, it := range items {
		t.candidates = append(t.candidates, &candidate{event: it.event, item: it})
	}
	return t
}

func (c *consumer) parkedTurn(k parkedKey, limit int) *turn {
	return &turn{consumer: c, store: c.store, due: &k, limit: limit}
}

// attempt makes the turn. An error that isn't ctx's is the fault of one of its events: of failed, if that is set. Nothing
// has happened then.
func (t *turn) attempt(ctx context.Context) error {
	given := t.candidates
	conflicts := maxConflicts
	if len(given) > 1 || t.limit > 1 {
		conflicts = 0 // fewer events hold fewer locks, so they conflict less
	}
	err := t.publishing(ctx, conflicts, func(ctx context.Context, tx rocketflow.Tx) error {
		t.candidates = given
		t.streams, t.failed, t.ran = nil, nil, nil
		return t.run(ctx, tx)
	})
	if err == nil {
		t.report()
	}
	return err
}

func (t *turn) run(ctx context.Context, tx rocketflow.Tx) error {
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
		if t.decide(c); c.decision == undecided {
			if t.due != nil {
				break // what stands behind a parked event that can't run now waits with it
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
	t.cfg.Listener.Ran(BatchInfo{t.name, t.ran})
	return nil
}

// load locks what the events need and reads what the decisions depend on.
// lookBehindHeads reads which of the delivered events are parked behind the first of their stream: one that passes that
// must not run beside its own row.
// loadParked makes candidates of parked events: the one that is due, if its turn has come, and those behind it.
// loadHead returns the events of a stream that may run now, the first being the one that is due.
// unknownRoutes lists the types that this process has no handler for.
func (t *turn) rules(e rocketflow.Event) rules {
	known := t.topicsRead[e.Topic]
	return rules{
		now: t.now, maxAhead: t.cfg.MaxAhead, positionRetention: t.cfg.PositionRetention, begin: known.Begin, born: known.Born,
		handled: t.handler(e) != nil, recorded: t.recorded[routeOf(e)],
	}
}

func (t *turn) decide(c *candidate) {
	e := c.event
	switch {
	case c.item != nil && c.item.unreadable != nil:
		c.decision = unreadable
		if t.alreadyHas[inbox.KeyOf(e)] {
			c.decision = alreadyParked
		}
	case c.stream != nil && t.forked[c.stream]:
		c.decision = undecided
	case c.row == nil && e.Ordered() && t.alreadyHas[inbox.KeyOf(e)]:
		c.decision = alreadyParked
	case e.Ordered() && c.row == nil:
		c.decision = decideDelivered(e, c.stream.Position, t.rules(e))
	case e.Ordered():
		at := c.stream.Position
		c.decision = decideParked(e, c.row.Reason, at, t.rules(e), c.row.Waited, t.opts.AdoptAfter)
		if c != t.candidates[0] && (c.decision == early || c.decision == tooOld || c.decision == unhandled) {
			c.decision = undecided // it becomes due by itself, and then has a turn of its own
		}
	default:
		c.decision = t.decideSingle(c)
	}
}

// decideSingle decides about an event without order.
func (t *turn) decideSingle(c *candidate) decision {
	e, k := c.event, inbox.KeyOf(c.event)
	d := t.rules(e).handler(e)
	found, entered := t.entries[k]
	switch {
	case c.row == nil && t.alreadyHas[k]:
		return alreadyParked
	case d != run || !inbox.UsesInbox(e):
		return d
	case c.row == nil && expired(e, t.now, t.cfg.InboxRetention):
		return tooOld
	case !entered || !found.Fresh:
		if found.Digest != nil && *found.Digest != 0 && *found.Digest != digest(e) {
			return conflict
		}
		return duplicate
	}
	if t.taken[k] {
		return duplicate // a second copy in this turn
	}
	t.taken[k] = true
	return run
}

// expired tells whether the inbox may have forgotten an event without order: it is kept by the day of the event's id.
func expired(e rocketflow.Event, now time.Time, retention time.Duration) bool {
	oldest := now.Add(-retention)
	return !e.Time.IsZero() && e.Time.Before(oldest) || e.ID.Version() == 7 && idTime(e.ID).Before(oldest)
}

// apply runs the handler of an event, or notes how the event waits.
func (t *turn) apply(ctx context.Context, tx rocketflow.Tx, c *candidate) error {
	park := func(p inbox.Parking) { c.parked = &p }
	switch c.decision {
	case run:
		attempt := 1
		if c.row != nil {
			attempt = c.row.Attempts + 1
			t.cfg.Listener.Retried(RetriedInfo{t.info(c.event), attempt})
		}
		var err error
		if c.took, err = t.call(ctx, tx, c.event, attempt); err != nil {
			return err
		}
		t.ran = append(t.ran, c.event)
		fallthrough
	case stepOver:
		if c.stream != nil {
			t.advance(c)
		}
	case early:
		switch {
		case c.row != nil:
			park(inbox.Parking{Reason: inbox.Gap, Attempts: c.row.Attempts, After: gapRecheck(c.row.Waited), Err: c.row.Err()})
		case t.opts.GapWait < 0 || !c.item.until.IsZero() && !t.cfg.Clock.Now().Before(c.item.until):
			park(inbox.Parking{Reason: inbox.Gap, After: gapRecheck(0)})
			c.stream.SetHead(c.event)
		}
	case behind:
		park(inbox.Parking{Reason: inbox.Gap, After: inbox.UntilWoken})
	case unhandled:
		p := inbox.Parking{Reason: inbox.Unhandled, After: inbox.UntilWoken, Err: fmt.Errorf("no process that met it has the handler of %s on topic %s", c.event.Type, c.event.Topic)}
		if c.row != nil {
			p.Attempts = c.row.Attempts
		}
		park(p)
		if c.stream != nil && c.row == nil {
			c.stream.SetHead(c.event)
		}
	case tooOld:
		park(inbox.Dead(errTooOld))
		if c.stream != nil && c.row == nil {
			c.stream.SetHead(c.event)
		}
	case tooLate:
		park(inbox.Dead(errTooLate))
		c.event = unplaced(c.event)
	case tooFarAhead:
		park(inbox.Dead(fmt.Errorf("its sequence %d lies more than %v ahead of Postgres' clock (%s): forged, or its publisher's clock is wrong",
			c.event.Sequence, t.cfg.MaxAhead, t.now.UTC().Format(time.RFC3339))))
		c.event = unplaced(c.event)
	case conflict:
		park(inbox.Dead(fmt.Errorf("%w (id %s)", errConflict, c.event.ID)))
		c.event = unplaced(c.event)
		c.event.ID = digestID(c.event.Source, c.event.ID.String(), fmt.Sprint(digest(c.event)))
	case unreadable:
		park(inbox.Dead(c.item.unreadable))
	}
	return nil
}

// advance moves a stream past an event. Where parked events are left behind, because the chain has gone another way, it is
// read anew before more of it runs.
func (t *turn) advance(c *candidate) {
	at := c.stream
	c.forks = at.Last < at.Head && at.Head < c.event.Sequence
	t.forked[at] = t.forked[at] || c.forks
	at.Last = c.event.Sequence
}

// save stores what became of the events.
// enteredInVain lists the events that are in the inbox since this turn and didn't run in it.
// report says what was committed.
func routeOf(e rocketflow.Event) inbox.Route { return inbox.Route{Topic: e.Topic, Type: e.Type} }

var (
	errStopped = errors.New("stopped before the event was handled")
	errBusy    = errors.New("the handler of its aggregate has been running for long")
)

// digest tells contents apart.
func digest(e rocketflow.Event) int64 { return stored.Digest(e) }

// idTime is when a UUIDv7 was drawn.
func idTime(id uuid.UUID) time.Time { return time.Unix(id.Time().UnixTime()) }
