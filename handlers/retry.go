package handlers

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
)

// retry looks at a parked event that is due and, if its turn has come, runs it. true: it had its effect, and if it has a
// place in a stream there may be others behind it.
func (c *consumer) retry(ctx context.Context, k parkedKey) bool {
	err := c.throttle(ctx, 1)
	if err != nil {
		return false // it is due again when our time with it is over
	}
	var t *try
	err = c.publishing(ctx, maxConflicts, func(ctx context.Context, tx rocketflow.Tx) error {
		t = &try{consumer: c}
		return t.run(ctx, tx, k)
	})
	switch {
	case ctx.Err() != nil:
	case err == nil:
		t.tell()
		return t.row != nil && t.fate == run && t.row.Event.Ordered()
	case t == nil || t.row == nil || !t.ran:
		// Not the event's fault, yet not Postgres' passing trouble either. It stays parked and comes back.
		c.cfg.Logger.Error("can't look at a parked event", keyConsumer, c.name, keyEvent, k.id, keyError, err)
	case isDiscard(err):
		_ = c.discard(ctx, t.row.Event, err) // if ctx ends first, it is due again later
	default:
		c.failed(ctx, t.row, err)
	}
	return false
}

// failed writes down that a parked event failed again.
func (c *consumer) failed(ctx context.Context, row *record, cause error) {
	p := c.cfg.Retry.parkingFor(cause, row.Attempts)
	changed := false
	err := c.stubbornly(ctx, func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, c.sql.Get("Reschedule"), c.name, row.Event.ID, p.reason, p.attempts, errorText(p.err), seconds(p.after))
		changed = tag.RowsAffected() > 0
		return err
	})
	if err == nil && changed {
		c.tellParked(row.Event, p)
	}
}

// try is one attempt at a parked event.
type try struct {
	*consumer
	row  *record // the event, or nil if there is nothing to do
	fate fate
	ran  bool // its handler was called, or it has none
	took time.Duration

	gap   *rocketflow.Gap // what it waits for, if its publisher can be asked for that
	skips bool            // its predecessor was not handled and won't be waited for
	last  int64           // position of its stream before
}

func (t *try) run(ctx context.Context, tx rocketflow.Tx, k parkedKey) error {
	var err error
	if k.stream == (rocketflow.Stream{}) {
		err = t.loose(ctx, tx, k)
	} else {
		err = t.ordered(ctx, tx, k)
	}
	if err != nil || t.row == nil {
		return err
	}
	switch e := t.row.Event; t.fate {
	case run:
		t.ran = true
		if t.handler(e) != nil {
			t.cfg.Listener.Retried(RetriedInfo{t.info(e), t.row.Attempts + 1})
		}
		if t.took, err = t.call(ctx, tx, e, t.row.Attempts+1); err != nil {
			return err
		}
		if err := advance(ctx, tx, t.sql, t.name, e); err != nil {
			return err
		}
		if s := k.stream; t.skips {
			if _, err := tx.Exec(ctx, t.sql.Get("Skip"), t.name, s.Source, s.Topic, s.Subject, t.last, e.Sequence); err != nil {
				return fmt.Errorf("skip predecessors: %w", err)
			}
		}
		t.cfg.Listener.Ran(BatchInfo{t.name, t.events()})
	case duplicate:
		return advance(ctx, tx, t.sql, t.name, e)
	case early:
		return t.reschedule(ctx, tx)
	}
	return nil
}

// loose takes an event without order.
func (t *try) loose(ctx context.Context, tx pgx.Tx, k parkedKey) error {
	row, err := readParked(ctx, tx, t.sql.Get("LoadParked"), t.name, k.id)
	if err != nil || row == nil || row.Reason == DeadLetter {
		return err
	}
	t.row, t.fate = row, run
	if t.handler(row.Event) == nil {
		return nil
	}
	fresh, err := settled(ctx, tx, t.sql, t.name, row.Event)
	if !fresh {
		t.fate = duplicate
	}
	return err
}

// ordered takes the first parked event of a stream, if that is the one meant.
func (t *try) ordered(ctx context.Context, tx pgx.Tx, k parkedKey) error {
	at, err := position(ctx, tx, t.sql, t.name, k.stream)
	if err != nil {
		return err
	}
	s := k.stream
	row, err := readParked(ctx, tx, t.sql.Get("LoadHead"), t.name, s.Source, s.Topic, s.Subject)
	if err != nil || row == nil {
		return err
	}
	if row.Event.ID != k.id {
		// It has come to stand behind another: that one wakes it.
		var q pgx.Batch
		q.Queue(t.sql.Get("Postpone"), t.name, k.id)
		q.Queue(t.sql.Get("WakeHeads"), t.name, []string{s.Source}, []string{s.Topic}, []string{s.Subject})
		if err := tx.SendBatch(ctx, &q).Close(); err != nil {
			return fmt.Errorf("postpone parked event: %w", err)
		}
		return nil
	}
	if row.Reason == DeadLetter {
		return nil
	}
	t.row = row
	now := t.now()
	at.head = 0 // this is it
	switch t.fate = t.place(row.Event, at, now); {
	case t.fate == duplicate:
	case row.Reason == Retry:
		t.fate = run // that its turn had come was decided before
	case t.fate == early && !t.adoptable(row.Event, at.last, now):
		gap := t.missing(row.Event, at.last)
		t.gap = &gap
	case t.fate == tooOld, t.fate == early:
		// That it is parked shows that it was not handled: nothing handles a parked event but this.
		t.fate = early
		if row.waited >= t.cfg.AdoptAfter {
			t.fate = run
		}
	}
	t.skips = t.fate == run && row.Event.Previous > at.last
	t.last = at.last
	return nil
}

func (t *try) reschedule(ctx context.Context, tx pgx.Tx) error {
	after := gapRecheck(t.row.waited)
	if _, err := tx.Exec(ctx, t.sql.Get("Reschedule"), t.name, t.row.Event.ID, Gap, t.row.Attempts, t.row.LastError, after.Seconds()); err != nil {
		return fmt.Errorf("reschedule gap: %w", err)
	}
	return nil
}

func (t *try) events() []rocketflow.Event {
	if t.handler(t.row.Event) == nil {
		return nil
	}
	return []rocketflow.Event{t.row.Event}
}

// tell reports what was committed.
func (t *try) tell() {
	if t.row == nil {
		return
	}
	e := t.row.Event
	switch t.fate {
	case early:
		if t.gap != nil {
			t.asker.offer(*t.gap)
		}
	case duplicate:
		t.cfg.Listener.Duplicate(t.info(e))
	case run:
		t.cfg.Listener.Committed(BatchInfo{t.name, t.events()})
		if t.handler(e) == nil {
			t.cfg.Listener.Skipped(t.info(e))
			return
		}
		t.cfg.Listener.Handled(HandledInfo{
			EventInfo: t.info(e), Attempt: t.row.Attempts + 1, Took: t.took, Batch: 1, Latency: t.now().Sub(e.Time),
		})
	}
}
