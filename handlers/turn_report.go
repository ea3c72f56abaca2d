package handlers

import (
	"log/slog"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// report logs the outcomes of a committed turn and calls the listener.
func (t *turn) report() {
	if t.failure == nil {
		t.cfg.Listener.Committed(BatchInfo{t.name, t.ran})
	}
	for _, c := range t.candidates {
		e := c.event
		for _, event := range c.superseded {
			t.reportParked(event, inbox.Dead(errSuperseded))
		}
		switch c.decision {
		case run:
			t.cfg.Listener.Handled(HandledInfo{
				EventInfo: t.info(e), Attempt: c.attempt(), Took: c.took, Batch: len(t.ran), Latency: t.now.Sub(e.Time),
			})
		case skip:
			t.cfg.Listener.Skipped(t.info(e))
		case discarded:
			t.cfg.Listener.Discarded(FailureInfo{t.info(e), 0, t.failure.err})
			t.signal()
		case duplicate:
			t.cfg.Listener.Duplicate(t.info(e))
		case early:
			if c.item != nil && c.item.until.IsZero() {
				t.cfg.Listener.Gap(GapInfo{t.info(e), c.stream.Last})
			}
			if c.row != nil {
				if r := t.conditions(e); !r.adoptable(e, c.stream.Last) {
					t.requests.offer(t.missing(e, c.stream.Last))
				}
			} else if c.parked != nil {
				t.reportParked(e, *c.parked)
			}
		default:
			if c.parked != nil {
				t.reportParked(e, *c.parked)
			}
		}
	}
	for _, s := range t.streams {
		if s.Last != s.First && s.Head != 0 {
			t.signal()
			return
		}
	}
}

// reportParked logs that an event is parked, or is a dead letter, and calls the listener.
func (c *consumer) reportParked(e rocketflow.Event, p inbox.Parking) {
	switch {
	case p.Reason == inbox.DeadLetter:
		c.logger(e).Error("an event is a dead letter, and holds back its stream if it has an order: inspect it with `rocketflow redrive list`, then retry or discard it", keyAttempt, p.Attempts, keyError, logText(p.Err))
		c.cfg.Listener.Dead(FailureInfo{c.info(e), p.Attempts, p.Err})
		return
	case p.Reason == inbox.Unhandled:
		c.repeated(e).Warn("an event waits for a process that has its handler; if the handler was removed for good, retire it with `rocketflow redrive retire`")
	case p.Err != nil:
		c.repeated(e).Warn("an event is parked and tried again later", keyAttempt, p.Attempts, keyRetryAfter, p.After, keyError, printable.Error(p.Err, inbox.MaxError))
	}
	c.cfg.Listener.Parked(ParkedInfo{c.info(e), Reason(p.Reason), p.Attempts, p.After, p.Err})
	c.signal()
}

// logger returns a logger that adds an event's attributes to each line.
func (c *consumer) logger(e rocketflow.Event) *slog.Logger { return c.withEvent(c.cfg.Logger, e) }

// repeated returns a logger as logger does, for what may happen to many events at once: lines about events of one type with one cause
// are counted instead.
func (c *consumer) repeated(e rocketflow.Event) *slog.Logger { return c.withEvent(c.cfg.repeated.Logger, e) }

// withEvent adds an event's attributes to each line of a logger. The event may come from any producer, so long texts are cut.
func (c *consumer) withEvent(log *slog.Logger, e rocketflow.Event) *slog.Logger {
	return log.With(keyConsumer, c.name, keyEvent, e.ID, keyTopic, printable.Text(e.Topic, maxLogged),
		keyType, printable.Text(e.Type, maxLogged), keySubject, printable.Text(e.Subject, maxLogged))
}

const maxLogged = 255

// logText returns the text of an error for a log line, cut and printable, as it may contain text from outside.
func logText(err error) string {
	if err == nil {
		return ""
	}
	return printable.Text(err.Error(), inbox.MaxError)
}
