package handlers

import (
	"context"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// settle writes down what becomes of an event whose handler failed: it waits for its next attempt, is a dead letter, or is
// discarded. It returns an error only if ctx ends.
func (c *consumer) settle(ctx context.Context, e rocketflow.Event, row *inbox.Record, cause error) error {
	if isDiscard(cause) {
		err := c.stubbornly(ctx, func(ctx context.Context, tx pgx.Tx) error { return c.store.Discard(ctx, tx, e) })
		if err == nil {
			c.cfg.Listener.Discarded(FailureInfo{c.info(e), 0, cause})
			c.signal()
		}
		return err
	}
	failed := 0
	if row != nil {
		failed = row.Attempts
	}
	return c.park(ctx, e, row, c.opts.Retry.parkingFor(cause, failed))
}

// park parks an event, or says how a parked one goes on waiting. It returns an error only if ctx ends.
func (c *consumer) park(ctx context.Context, e rocketflow.Event, row *inbox.Record, p inbox.Parking) error {
	changed := false
	err := c.stubbornly(ctx, func(ctx context.Context, tx pgx.Tx) error {
		changed = false
		var q pgx.Batch
		if row != nil {
			c.store.QueueReschedule(&q, e, p).Exec(func(tag pgconn.CommandTag) error {
				changed = tag.RowsAffected() > 0
				return nil
			})
			return tx.SendBatch(ctx, &q).Close()
		}
		if e.Ordered() {
			at := &inbox.LockedStream{Stream: e.Stream()}
			if err := c.store.Lock(ctx, tx, []*inbox.LockedStream{at}, &pgx.Batch{}); err != nil {
				return err
			}
			switch decideDelivered(e, at.Position, rules{now: c.now(), maxAhead: c.cfg.MaxAhead, positionRetention: c.cfg.PositionRetention, handled: true}) {
			case duplicate, alreadyParked:
				return nil
			}
		}
		changed = true
		if err := c.store.QueuePark(&q, e, p); err != nil {
			return err
		}
		return tx.SendBatch(ctx, &q).Close()
	})
	if err == nil && changed {
		c.reportParked(e, p)
	}
	return err
}

// parkBusy parks an event behind a handler that takes long. That handler's transaction holds the inbox.Position, so nothing is
// known of it: the event is looked at again by itself, and what it finds then decides.
func (c *consumer) parkBusy(ctx context.Context, e rocketflow.Event) error {
	p := inbox.Parking{Reason: inbox.Busy, After: firstRecheck, Err: errBusy}
	err := c.stubbornly(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var q pgx.Batch
		if err := c.store.QueuePark(&q, e, p); err != nil {
			return err
		}
		return tx.SendBatch(ctx, &q).Close()
	})
	if err == nil {
		c.reportParked(e, p)
	}
	return err
}

func (c *consumer) reportParked(e rocketflow.Event, p inbox.Parking) {
	switch {
	case p.Reason == inbox.DeadLetter:
		c.logger(e).Error("event is a dead letter: look at it with `rocketflow redrive list`", keyAttempt, p.Attempts, keyError, logText(p.Err))
		c.cfg.Listener.Dead(FailureInfo{c.info(e), p.Attempts, p.Err})
		return
	case p.Reason == inbox.Unhandled:
		c.logger(e).Warn("event waits for a process that has its handler; if the handler is gone for good, retire it with `rocketflow redrive retire`")
	case p.Err != nil:
		c.logger(e).Warn("event will be tried again", keyAttempt, p.Attempts, keyAfter, p.After, keyError, logText(p.Err))
	}
	c.cfg.Listener.Parked(ParkedInfo{c.info(e), Reason(p.Reason), p.Attempts, p.After, p.Err})
	c.signal()
}

// logger names an event in each line. What it carries may be anybody's text.
func (c *consumer) logger(e rocketflow.Event) *slog.Logger {
	return c.cfg.Logger.With(keyConsumer, c.name, keyEvent, e.ID, keyTopic, printable.Text(e.Topic, maxLogged),
		keyType, printable.Text(e.Type, maxLogged), keySubject, printable.Text(e.Subject, maxLogged))
}

const maxLogged = 255
