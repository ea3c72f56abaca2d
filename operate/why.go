package operate

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/valid"
	"github.com/rocketflow/rocketflow/internal/wire"
)

//go:embed why.sql
var whySQL string

const (
	brokerTimeout = 5 * time.Second // of each question to the broker
	memberTimeout = 5 * time.Second // of the first question to each schema
)

// Why explains what happened to an event, or to everything with a key, what it waits for, and what to do. id is the id of an event;
// the id of a message, as RocketMQ's tools show it; or a subject, the key of a saga or the key of a timeout. The explanation of an id
// that is unknown has the kind ExplainsNothing and says where Why looked.
//
// It reads each schema in one read-only snapshot, by indexes and with capped lists, and the broker, if SystemConfig.Broker is set, by its
// index of keys. What operators did is read from the audit, what became of timeouts from their history, which is kept for
// outbox.Config.TimeoutHistoryRetention. What a saga has not accepted of an event, or has failed with, is found among the 5,000 events that
// came last of those that wait for sagas; the transitions that an event caused, where its subject is the saga's key or it waits for the saga.
// The event of a timeout that is armed is found by its id if the timeout is among the 10,000 that
// are due first; by its key it is always found. A schema that can't be read within 5 s is among Explanation.Unread; the error of the last is
// returned only if none can be read.
func (y *System) Why(ctx context.Context, id string) (*Explanation, error) {
	if id == "" {
		return nil, valid.Field("operate.System.Why.id", "missing")
	}
	w := &inquiry{System: y, x: &Explanation{ID: id, Unread: slices.Clone(y.config.Unread)}, paused: map[string][]Pause{}}
	err := w.look(ctx)
	if err == nil {
		err = w.answer(ctx, id)
	}
	if err != nil {
		return nil, printable.Errorf("explain %s: %w", id, err)
	}
	w.x.Verdict.readAll(w.members[0].database)
	for i := range w.x.Also {
		w.x.Also[i].readAll(w.members[0].database)
	}
	return w.x, nil
}

// readAll says that a command that reads all schemas needs all databases. database is empty if there is one only.
func (v *Verdict) readAll(database string) {
	if database != "" && strings.HasPrefix(v.Command, "rocketflow why ") {
		v.Command += "  # with the same --database"
	}
}

// inquiry is one call of Why.
type inquiry struct {
	*System
	members  []member
	x        *Explanation
	verdicts []Verdict
	paused   map[string][]Pause // by member
}

func (w *inquiry) answer(ctx context.Context, id string) error {
	event, err := uuid.Parse(id) // also in the form of a message id: the unique key of a message is the event's id
	if err == nil {
		if found, err := w.event(ctx, event); err != nil || found {
			return err
		}
	}
	if found, err := w.key(ctx, id); err != nil || found {
		return err
	}
	if isOffsetID(id) {
		if found, err := w.message(ctx, id); err != nil || found {
			return err
		}
	}
	w.unknown(id, event)
	return nil
}

// isOffsetID reports whether id has the form of the id that a broker gives a message.
func isOffsetID(id string) bool {
	return (len(id) == 32 || len(id) == 56) && !strings.ContainsFunc(id, func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF", r) })
}

// look notes which schemas are read and how far back they go, and which can't be read.
func (w *inquiry) look(ctx context.Context) error {
	var last error
	members, err := w.eachMember(ctx, func(o *Operator, err error) error {
		last = err
		w.x.Unread = append(w.x.Unread, UnreadSchema{o.config.Schema, err.Error()})
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	for _, m := range members {
		p, err := w.lookInto(ctx, &m)
		switch {
		case err == nil:
			w.members, w.x.Looked = append(w.members, m), append(w.x.Looked, p)
		case ctx.Err() != nil:
			return ctx.Err()
		default:
			last = err
			w.x.Unread = append(w.x.Unread, UnreadSchema{m.config.Schema, err.Error()})
		}
	}
	if len(w.members) == 0 {
		return last
	}
	return nil
}

// lookInto notes how far back a schema goes, and which of its consumers are paused.
func (w *inquiry) lookInto(ctx context.Context, m *member) (Place, error) {
	ctx, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	p := Place{Service: m.service, Schema: m.config.Schema}
	err := m.read(ctx, func(s snapshot) error {
		var oldest *uuid.UUID
		var recorded *time.Time
		var inbox, position float64
		var now time.Time
		if err := s.tx.QueryRow(ctx, s.sql.Get("Now")).Scan(&now); err != nil {
			return err
		}
		if err := s.tx.QueryRow(ctx, s.sql.Get("Horizon")).Scan(&oldest, &recorded, &inbox, &position); err != nil {
			return err
		}
		pauses, err := s.pauses(ctx, "", 0)
		if err != nil {
			return err
		}
		if w.x.Now.IsZero() {
			w.x.Now = now
		}
		w.paused[m.key] = pauses
		p.OldestEvent = orZero(recorded)
		p.InboxRetention, p.PositionRetention = time.Duration(inbox*float64(time.Second)), time.Duration(position*float64(time.Second))
		return nil
	})
	if err != nil {
		return p, fmt.Errorf("schema %s: %w", m.config.Schema, err)
	}
	return p, nil
}

// message finds the event of a message by the id that the broker gave the message.
func (w *inquiry) message(ctx context.Context, id string) (found bool, err error) {
	if w.config.Broker == nil {
		w.x.Broker = "not asked, as none is configured: only the broker knows a message by such an id"
		return false, nil
	}
	ask, cancel := context.WithTimeout(ctx, brokerTimeout)
	defer cancel()
	m, err := w.config.Broker.MessageByOffsetID(ask, id)
	if err != nil {
		w.x.Broker = err.Error()
		return false, ctx.Err()
	}
	e, err := wire.EventOf(m.Delivery)
	if err != nil {
		w.x.Broker = fmt.Sprintf("it has the message, in queue %d of %s, but that is no event: %v", m.Queue, m.Broker, err)
		return false, nil
	}
	return w.event(ctx, e.ID)
}

// unknown says where Why looked for what it hasn't found, and what may have removed it.
func (w *inquiry) unknown(id string, event uuid.UUID) {
	x := w.x
	x.Kind, x.Title = ExplainsNothing, id
	v := Verdict{State: VerdictUnknown, Because: "no schema that was read has an event, a subject, a saga or a timeout with this id. What became of a timeout is forgotten after outbox.Config.TimeoutHistoryRetention, by default 7 days"}
	if event != uuid.Nil {
		v.Because = "no schema that was read has it. Of a handled event of another service's stream only a position is recorded: read the publisher's schema, too"
	}
	if event != uuid.Nil && event.Version() == 7 {
		made := clock.TimeOf(event)
		kept := time.Time{}
		for _, p := range x.Looked {
			if !p.OldestEvent.IsZero() && (kept.IsZero() || p.OldestEvent.Before(kept)) {
				kept = p.OldestEvent
			}
		}
		switch {
		case made.After(x.Now.Add(time.Minute)):
			v.Because = "the id is of the future"
		case kept.IsZero():
			v.Because = "no outbox that was read has any event: read the publisher's schema, too"
		case made.Before(kept):
			v.Because = fmt.Sprintf("the id was made %s ago, and no outbox that was read goes back so far: the retention has removed it", sinceText(made, x.Now))
		default:
			v.Because = fmt.Sprintf("the id was made %s ago, when the outboxes that were read kept events: its transaction was rolled back or is still open, or the publisher's schema was not read, or it is the event of a timeout that is armed for later: ask by the timeout's key", sinceText(made, x.Now))
		}
	}
	v.Because += x.butUnread()
	x.conclude([]Verdict{v})
}
