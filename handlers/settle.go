package handlers

import (
	"context"
	"errors"
	"log/slog"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/printable"
)

var errBusy = errors.New("the handler of its aggregate has been running for long")

// parkBusy parks an event behind a handler that takes long. That handler's transaction holds the position, so nothing is
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
