package operate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/internal/valid"
)

// EndedTimeout is what became of a timeout that was armed, until it fired, was disarmed, or was moved and so got another event.
// It is kept for outbox.Config.TimeoutHistoryRetention.
type EndedTimeout struct {
	Key     string         `json:"key"`
	Name    string         `json:"name"`
	EventID uuid.UUID      `json:"event_id"` // of the event that it fired with, or would have fired with
	ArmedAt time.Time      `json:"armed_at"` // or moved to DueAt
	DueAt   time.Time      `json:"due_at"`
	EndedAt time.Time      `json:"ended_at"`
	Outcome TimeoutOutcome `json:"outcome"`
	// ByOperator says that an operator moved or disarmed it. The audit says who, and why.
	ByOperator bool `json:"by_operator,omitempty"`
	// Consumer is the one whose handler handled its event, or that settled it; empty: neither happened.
	Consumer string `json:"consumer,omitempty"`
	// NextEventID is the id of the event that the timeout had from then on; zero: it was not armed any more.
	NextEventID uuid.UUID `json:"next_event_id,omitzero"`
	Topic       string    `json:"topic"`
	Type        string    `json:"type"`
	Subject     string    `json:"subject"`
}

// TimeoutOutcome says how a timeout ended.
type TimeoutOutcome string

// The values of TimeoutOutcome.
const (
	TimeoutFired    TimeoutOutcome = "fired"    // its event was handled. With a NextEventID: the handler armed it again
	TimeoutMoved    TimeoutOutcome = "moved"    // to another time
	TimeoutReplaced TimeoutOutcome = "replaced" // it was armed again before it fired, perhaps with another event
	TimeoutDisarmed TimeoutOutcome = "disarmed" // it didn't fire
	TimeoutSettled  TimeoutOutcome = "settled"  // its event was settled without having been handled, as by the discard of its dead letter
)

// EndedTimeouts returns what became of the timeouts of a key that have ended, the latest first. The key is required.
func (o *Operator) EndedTimeouts(ctx context.Context, f TimeoutFilter) (list []EndedTimeout, err error) {
	if err := checkLimit("TimeoutFilter", f.Limit); err != nil {
		return nil, err
	}
	if f.Key == "" {
		return nil, valid.Field("operate.TimeoutFilter.Key", "missing")
	}
	err = o.read(ctx, func(s snapshot) error {
		list, err = s.endedTimeouts(ctx, f.Key, false, listLimit(f.Limit))
		return err
	})
	return list, err
}

// endedTimeouts reads what became of the timeouts of a key and, if subject is set, of those whose event has it as its subject; the latest
// first.
func (s snapshot) endedTimeouts(ctx context.Context, key string, subject bool, limit int64) ([]EndedTimeout, error) {
	list, err := collect(ctx, s, "EndedTimeouts", func(row pgx.CollectableRow, v *EndedTimeout) error { return v.scan(row) }, key, subject, limit)
	if err != nil {
		return nil, fmt.Errorf("list ended timeouts: %w", err)
	}
	return list, nil
}

// endedTimeout reads what became of the timeout that had an event; nil: nothing is recorded.
func (s snapshot) endedTimeout(ctx context.Context, event uuid.UUID) (*EndedTimeout, error) {
	v := &EndedTimeout{}
	err := v.scan(s.tx.QueryRow(ctx, s.sql.Get("EndedTimeout"), event.String()))
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ended timeout: %w", err)
	}
	return v, nil
}

func (t *EndedTimeout) scan(row pgx.Row) error {
	var next *uuid.UUID
	err := row.Scan(&t.Key, &t.Name, &t.EventID, &t.ArmedAt, &t.DueAt, &t.EndedAt, &t.Outcome, &t.ByOperator, &t.Consumer, &next, &t.Topic, &t.Type, &t.Subject)
	if next != nil {
		t.NextEventID = *next
	}
	return err
}

// what names the timeout in a time line.
func (t *EndedTimeout) what() string {
	if saga, ok := strings.CutPrefix(t.Type, sagaDeadline); ok {
		return "the deadline of saga " + saga + " of " + t.Subject + " in state " + t.Name
	}
	return "timeout " + t.Name + " of " + t.Key
}

// by is who moved or disarmed it, in words that follow the verb.
func (t *EndedTimeout) by() string {
	if t.ByOperator {
		return " by an operator"
	}
	return ""
}

// overdue is how long after its due time it ended, or before.
func (t *EndedTimeout) overdue() string {
	if t.EndedAt.Before(t.DueAt) {
		return sinceText(t.EndedAt, t.DueAt) + " before it was due"
	}
	return sinceText(t.DueAt, t.EndedAt) + " after it was due"
}

// text says how it ended, in words that follow its name. next is when it was due from then on; zero: unknown.
func (t *EndedTimeout) text(next time.Time) string {
	to := ""
	if !next.IsZero() {
		to = " to " + dueText(next)
	}
	switch t.Outcome {
	case TimeoutFired:
		text := "fired, " + t.overdue()
		if t.Consumer != "" {
			text += ", handled by " + t.Consumer
		}
		switch {
		case t.NextEventID == uuid.Nil:
			return text
		case next.IsZero():
			return text + ", and armed again"
		}
		return text + ", and armed again for " + dueText(next)
	case TimeoutMoved:
		return "moved" + t.by() + " from " + dueText(t.DueAt) + to
	case TimeoutReplaced:
		return "armed again instead of for " + dueText(t.DueAt) + strings.Replace(to, " to ", ", for ", 1)
	case TimeoutDisarmed:
		return "disarmed" + t.by() + ", " + t.overdue()
	}
	return "ended without firing: " + t.settled()
}

func (t *EndedTimeout) settled() string {
	by := ""
	if t.Consumer != "" {
		by = " by " + t.Consumer
	}
	return "its event was settled" + by + " but not handled, as a discarded dead letter is"
}

// verdict says what became of the timeout and, if its event is what is explained, of that.
func (t *EndedTimeout) verdict(ofEvent bool) Verdict {
	v := Verdict{State: VerdictDone, Since: t.EndedAt, rank: 4}
	void := ""
	if ofEvent {
		void = ": this event has no effect"
	}
	switch t.Outcome {
	case TimeoutFired:
		v.What = t.what() + " fired, " + t.overdue()
	case TimeoutMoved:
		v.What = t.what() + " was moved" + t.by() + " before it fired" + void
	case TimeoutReplaced:
		v.What = t.what() + " was armed again before it fired" + void
	case TimeoutDisarmed:
		v.What = t.what() + " was disarmed" + t.by() + void
	default:
		v.What = t.what() + " has not fired: " + t.settled()
	}
	if t.NextEventID != uuid.Nil {
		v.Command = command("rocketflow", "why", t.NextEventID.String())
	}
	return v
}

// dueText is a due time in a time line.
func dueText(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000Z") }

// endedTimeouts adds what became of timeouts, the latest first in list; armed are those that are armed.
func (w *inquiry) endedTimeouts(m *member, list []EndedTimeout, armed []Timeout) {
	due := map[uuid.UUID]time.Time{} // by event
	for _, t := range armed {
		due[t.EventID] = t.DueAt
	}
	follows := map[uuid.UUID]bool{} // events of timeouts whose arming is said by the end of the one before
	for _, t := range list {
		due[t.EventID] = t.DueAt
		follows[t.NextEventID] = true
	}
	for i := len(list) - 1; i >= 0; i-- {
		t := &list[i]
		if !follows[t.EventID] {
			w.x.Timeline = append(w.x.Timeline, Entry{At: t.ArmedAt, Service: m.service, Text: t.what() + ": armed for " + dueText(t.DueAt), EventID: t.EventID})
		}
		e := Entry{
			At: t.EndedAt, Service: m.service, Text: t.what() + ": " + t.text(due[t.NextEventID]), EventID: t.EventID, Problem: t.Outcome == TimeoutSettled,
		}
		if t.ByOperator {
			e.steered = t.EventID
		}
		w.x.Timeline = append(w.x.Timeline, e)
	}
}
