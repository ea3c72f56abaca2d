package operate

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/valid"
)

//go:embed pause.sql
var pauseSQL string

var (
	// ErrUnknownConsumer means that no consumer of this name has ever started, or that it doesn't read the topic.
	ErrUnknownConsumer = errors.New("the consumer has never started, or doesn't read the topic")
	// ErrTooManyPauses means that the consumer has MaxPauses pauses.
	ErrTooManyPauses = fmt.Errorf("the consumer has %d pauses already: pause the handlers or the consumer instead of single streams", MaxPauses)
)

// MaxPauses is the maximum number of pauses of a consumer.
const MaxPauses = inbox.MaxPauses

// PauseKind says what a pause holds.
type PauseKind string

// The values of PauseKind.
const (
	PauseConsumer PauseKind = PauseKind(inbox.PausedConsumer) // everything that the consumer handles
	PauseHandler  PauseKind = PauseKind(inbox.PausedHandler)  // events of a topic and type, and what is behind them in their streams
	PauseStream   PauseKind = PauseKind(inbox.PausedStream)   // events of a topic and subject
)

// PauseTarget is what is paused or resumed.
type PauseTarget struct {
	Kind     PauseKind `json:"kind"`              // required
	Consumer string    `json:"consumer"`          // required
	Topic    string    `json:"topic,omitempty"`   // of a handler or a stream
	Type     string    `json:"type,omitempty"`    // of a handler; empty: that of messages without a tag (handlers.Untagged)
	Subject  string    `json:"subject,omitempty"` // of a stream
}

// String returns what the target is, in words.
func (t PauseTarget) String() string {
	switch t.Kind {
	case PauseHandler:
		return fmt.Sprintf("the handler of %s for %s on topic %s", t.Consumer, orText(t.Type, "messages without a tag"), t.Topic)
	case PauseStream:
		return fmt.Sprintf("subject %s of topic %s in consumer %s", t.Subject, t.Topic, t.Consumer)
	}
	return "consumer " + t.Consumer
}

func orText(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

func (t PauseTarget) check() error {
	bad := func(field, reason string) error { return valid.Field("operate.PauseTarget."+field, reason) }
	switch {
	case t.Consumer == "":
		return bad("Consumer", "missing")
	case t.Kind == PauseConsumer && t.Topic+t.Type+t.Subject != "":
		return bad("Topic", "a whole consumer has no topic, type or subject")
	case t.Kind == PauseConsumer:
		return nil
	case t.Kind != PauseHandler && t.Kind != PauseStream:
		return bad("Kind", printable.Quote(string(t.Kind), printable.Name)+": want consumer, handler or stream")
	case t.Topic == "":
		return bad("Topic", "missing")
	case t.Kind == PauseHandler && t.Subject != "":
		return bad("Subject", "a handler has none")
	case t.Kind == PauseStream && t.Subject == "":
		return bad("Subject", "missing")
	case t.Kind == PauseStream && t.Type != "":
		return bad("Type", "a stream has none")
	}
	return nil
}

func (t PauseTarget) args() []any {
	return []any{t.Consumer, string(t.Kind), t.Topic, t.Type, t.Subject}
}

// Pause is something that is paused.
type Pause struct {
	PauseTarget
	Since  time.Time `json:"since"`
	Actor  string    `json:"actor"`
	Reason string    `json:"reason,omitempty"`
	// Held is how many events of a handler or a stream are parked because of the pause, without those that wait behind them; it ends at
	// MaxCount. The events of a paused consumer are at the broker.
	Held int64 `json:"held"`
}

// Pause makes a consumer, one of its handlers, or the streams of a subject wait, and returns false if that is paused already. Nothing is
// lost, handled twice, or handled out of order because of it, and no attempt is counted; it holds across restarts, until Resume. The
// name of the actor of ctx and the reason are shown wherever the pause is.
//
// No handler is called in a transaction that begins after Pause has returned, in any process of this version; handlers that run are
// not interrupted, and those that share their transaction still run, for about a second. A paused consumer leaves its events at the
// broker: before they are older than the broker keeps messages, resume it. Events of a paused handler or stream are parked in Postgres,
// which takes about their size on the disk, while the others of the consumer go on.
//
// The error matches ErrUnknownConsumer or ErrUnknownHandler if there is no such thing, and ErrTooManyPauses.
func (o *Operator) Pause(ctx context.Context, t PauseTarget) (bool, error) {
	if err := t.check(); err != nil {
		return false, err
	}
	op, err := o.operation(ctx, ActionPause, t)
	if err != nil {
		return false, err
	}
	paused := false
	err = op.inTx(ctx, func(tx pgx.Tx) (c changed, err error) {
		var consumer, topic, handler bool
		var pauses int
		if err := tx.QueryRow(ctx, o.sql.Get("Pausable"), t.Consumer, t.Topic, t.Type).Scan(&consumer, &topic, &handler, &pauses); err != nil {
			return c, err
		}
		switch {
		case !consumer, t.Kind == PauseStream && !topic:
			return c, ErrUnknownConsumer
		case t.Kind == PauseHandler && !handler:
			return c, ErrUnknownHandler
		case pauses >= MaxPauses:
			return c, ErrTooManyPauses
		}
		tag, err := tx.Exec(ctx, o.sql.Get("Pause"), append(t.args(), op.actor.Name, op.actor.Reason)...)
		if paused = tag.RowsAffected() > 0; paused {
			c.add(t.id())
			c.after = map[string]bool{"paused": true}
		}
		return c, err
	})
	if err != nil {
		return false, printable.Errorf("pause %v: %w", t, err)
	}
	return paused, nil
}

// holds reports whether the pause holds an event.
func (t PauseTarget) holds(consumer, topic, eventType, subject string) bool {
	switch {
	case t.Consumer != consumer:
		return false
	case t.Kind == PauseHandler:
		return t.Topic == topic && t.Type == eventType
	case t.Kind == PauseStream:
		return t.Topic == topic && t.Subject == subject
	}
	return true
}

// resumeCommand returns the words of the command that ends the pause, without the schema.
func (t PauseTarget) resumeCommand() []string {
	words := []string{"rocketflow", "resume", "--consumer", t.Consumer}
	switch t.Kind {
	case PauseHandler:
		words = append(words, "--topic", t.Topic, "--type", t.Type)
	case PauseStream:
		words = append(words, "--topic", t.Topic, "--subject", t.Subject)
	}
	return words
}

// since returns since when and by whom it is paused, and why.
func (p Pause) since() string {
	text := fmt.Sprintf("paused since %s by %s", p.Since.UTC().Format(time.RFC3339), p.Actor)
	return text + errorText(p.Reason)
}

// id is the target in the ids of the audit.
func (t PauseTarget) id() string {
	switch t.Kind {
	case PauseHandler:
		return t.Consumer + "/" + t.Topic + "/" + t.Type
	case PauseStream:
		return t.Subject
	}
	return t.Consumer
}

// Resume ends a pause, and returns false if there is none. The processes of the service go on within a second, with the events in their
// order.
func (o *Operator) Resume(ctx context.Context, t PauseTarget) (bool, error) {
	if err := t.check(); err != nil {
		return false, err
	}
	op, err := o.operation(ctx, ActionResume, t)
	if err != nil {
		return false, err
	}
	resumed := false
	err = op.inTx(ctx, func(tx pgx.Tx) (c changed, err error) {
		var p Pause
		err = tx.QueryRow(ctx, o.sql.Get("Resume"), t.args()...).Scan(&p.Since, &p.Actor, &p.Reason)
		if errors.Is(err, pgx.ErrNoRows) {
			return c, nil
		}
		if resumed = err == nil; resumed {
			c.add(t.id())
			c.before = map[string]any{"paused": true, "since": p.Since, "actor": p.Actor, "reason": p.Reason}
			c.after = map[string]bool{"paused": false}
		}
		return c, err
	})
	if err != nil {
		return false, printable.Errorf("resume %v: %w", t, err)
	}
	return resumed, nil
}

// Pauses returns what is paused, of a consumer or, if it is empty, of all; at most 1,000.
func (o *Operator) Pauses(ctx context.Context, consumer string) (list []Pause, err error) {
	err = o.read(ctx, func(s snapshot) error {
		list, err = s.pauses(ctx, consumer, MaxCount)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list pauses: %w", err)
	}
	return list, nil
}

// pauses returns what is paused, and counts at most so many events of each.
func (s snapshot) pauses(ctx context.Context, consumer string, count int64) ([]Pause, error) {
	return collect(ctx, s, "Paused", func(row pgx.CollectableRow, p *Pause) error {
		return row.Scan(&p.Consumer, &p.Kind, &p.Topic, &p.Type, &p.Subject, &p.Since, &p.Actor, &p.Reason, &p.Held)
	}, consumer, maxRows, count)
}
