package operate

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/broker"
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
// outbox.Config.TimeoutHistoryRetention. The event of a timeout that is armed is found by its id if the timeout is among the 10,000 that
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
	return w.x, nil
}

// inquiry is one call of Why.
type inquiry struct {
	*System
	members  []member
	x        *Explanation
	verdicts []Verdict
	paused   map[string][]Pause // by schema
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
		w.paused[m.config.Schema] = pauses
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

// explained is the event that is explained, and where it was published.
type explained struct {
	EventStatus
	publisher   *member // nil: none that was read
	transaction string  // its id
	committed   string  // how long after it was recorded
	confirmed   string  // the path that it took
	running     bool    // whether a process of the publisher runs
}

// handover is how long nobody may hold the lease of a service's sweep while one of its processes takes over from another.
const handover = 10 * time.Second

// owedVerdict is the verdict on owed events of a service.
func owedVerdict(m *member, running bool, what, subject string, since time.Time) Verdict {
	v := Verdict{
		State: VerdictWaiting, For: "the broker's confirmation" + what, Since: since,
		Because: subject + " owed: the sweep sends what is owed while a process of " + m.service + " runs and the broker accepts it",
		Command: command("rocketflow", "inspect", "backlog", "--schema", m.config.Schema), rank: 1,
	}
	if !running {
		v.State, v.Because = VerdictStopped, subject+" owed, and no process of "+m.service+" runs that would send what is owed: start one"
	}
	return v
}

// ackPaths says how an event reached the broker, by the column path of outbox_ack.
var ackPaths = map[int16]string{1: "by half message", 2: "by the relay, after the commit", 3: "by the sweep", 4: "by half message, which a check-back committed"}

// event explains an event; found is false if no schema has it.
func (w *inquiry) event(ctx context.Context, id uuid.UUID) (found bool, err error) {
	e := explained{EventStatus: EventStatus{ID: id}}
	x := w.x
	for i := range w.members {
		m := &w.members[i]
		err := m.read(ctx, func(s snapshot) error { return w.findEvent(ctx, s, m, &e, &found) })
		if err != nil {
			return false, fmt.Errorf("schema %s: %w", m.config.Schema, err)
		}
	}
	for i := range w.members {
		m := &w.members[i]
		if e.Topic != "" {
			break
		}
		if err := m.read(ctx, func(s snapshot) error { return w.findArmed(ctx, s, m, &e, &found) }); err != nil {
			return false, fmt.Errorf("schema %s: %w", m.config.Schema, err)
		}
	}
	if err := w.cause(ctx, &e); err != nil {
		return false, err
	}
	// What the broker knows is asked before the consumers' tables are read: what it says was read is recorded there.
	at := w.askBroker(ctx, &e)
	w.publication(&e, at)
	consumers, recorded, err := w.consumers(ctx, &e, at)
	if err != nil {
		return false, err
	}
	found = found || recorded
	if !found {
		w.x.Timeline, w.verdicts = nil, nil
		return false, nil
	}
	x.Kind = ExplainsEvent
	x.Title = "event " + id.String()
	if e.Type != "" {
		from := "from " + e.Source
		if e.Source == "" { // of what is known of a timeout
			from = "of timeout " + e.TimeoutName + " of " + e.TimeoutKey
		}
		x.Title = fmt.Sprintf("event %s: %s of %s, %s to topic %s", id, e.Type, subjectText(e.Subject), from, e.Topic)
	}
	if e.publisher != nil && consumers == 0 {
		w.verdicts = append(w.verdicts, Verdict{
			State: VerdictUnknown, For: "a consumer", Since: e.RecordedAt, Because: "no consumer of the schemas that were read reads topic " + e.Topic + ": start one, or read its schema, too",
		})
	}
	if err := w.effects(ctx, id); err != nil {
		return false, err
	}
	if len(w.verdicts) == 0 {
		w.verdicts = append(w.verdicts, Verdict{State: VerdictDone, What: "nothing waits for it"})
	}
	x.conclude(w.verdicts)
	return true, nil
}

// consumers adds what the consumers of all schemas have done with an event. It returns how many read its topic, and whether any has
// a record of the event.
func (w *inquiry) consumers(ctx context.Context, e *explained, at brokerAnswer) (n int, recorded bool, err error) {
	for i := range w.members {
		m := &w.members[i]
		var list []reader
		err := m.read(ctx, func(s snapshot) (err error) {
			if list, err = s.readers(ctx, &e.EventStatus); err != nil {
				return err
			}
			if w.x.Kind == ExplainsKey { // the sagas of the key are explained already, and what operators did
				return nil
			}
			changed, err := w.addAuditOf(ctx, s, m, e, list)
			if err != nil {
				return err
			}
			recorded = recorded || changed
			return w.sagasOf(ctx, s, m, e)
		})
		if err != nil {
			return 0, false, fmt.Errorf("schema %s: %w", m.config.Schema, err)
		}
		for _, c := range list {
			recorded = recorded || !c.HandledAt.IsZero() || c.Parked != nil
			n++
			if err := w.reader(ctx, m, e, c, at); err != nil {
				return 0, false, fmt.Errorf("schema %s: %w", m.config.Schema, err)
			}
		}
	}
	return n, recorded, nil
}

func subjectText(subject string) string {
	if subject == "" {
		return "no subject"
	}
	return subject
}

func (w *inquiry) findEvent(ctx context.Context, s snapshot, m *member, e *explained, found *bool) error {
	here := EventStatus{ID: e.ID}
	known, err := s.event(ctx, &here)
	if err != nil {
		return err
	}
	if known && (e.Topic == "" || here.InOutbox) && e.publisher == nil {
		e.EventStatus, *found = here, true
	}
	if here.Ended != nil {
		w.endedTimeouts(m, []EndedTimeout{*here.Ended}, nil)
		w.verdicts = append(w.verdicts, here.Ended.verdict(true))
	}
	if here.InOutbox && e.publisher == nil {
		e.publisher = m
		var committed *time.Time
		var path int16
		if err := s.tx.QueryRow(ctx, s.sql.Get("EventEvidence"), e.ID.String()).Scan(&e.transaction, &committed, &path); err != nil {
			return err
		}
		if committed != nil {
			e.committed = fmt.Sprintf(", committed %s later", committed.Sub(here.RecordedAt).Round(time.Millisecond))
		}
		e.confirmed = ackPaths[path]
		if err := s.tx.QueryRow(ctx, s.sql.Get("ServiceRuns")).Scan(&e.running); err != nil {
			return err
		}
	}
	var d Discarded
	switch err := s.tx.QueryRow(ctx, s.sql.Get("Discarded"), e.ID.String()).Scan(&d.Type, &d.Reason, &d.At); {
	case err == nil:
		e.Discarded, *found = &d, true
		if e.publisher == nil {
			e.publisher = m
		}
	case !errors.Is(err, pgx.ErrNoRows):
		return err
	}
	return nil
}

// findArmed looks for the event among those of armed timeouts.
func (w *inquiry) findArmed(ctx context.Context, s snapshot, m *member, e *explained, found *bool) error {
	t, err := s.armedByEvent(ctx, e.ID)
	if err != nil || t == nil {
		return err
	}
	var running bool
	if err := s.tx.QueryRow(ctx, s.sql.Get("ServiceRuns")).Scan(&running); err != nil {
		return err
	}
	w.timeout(m, running, *t, "timeout "+t.Name+" of "+t.Key)
	e.Topic, e.Type, e.Subject, e.RecordedAt, e.TimeoutKey, e.TimeoutName = t.Topic, t.Type, t.Subject, t.ArmedAt, t.Key, t.Name
	*found = true
	return nil
}

// publication adds to the time line how the event was published and reached the broker.
func (w *inquiry) publication(e *explained, at brokerAnswer) {
	x := w.x
	add := func(t time.Time, problem bool, service, format string, args ...any) {
		x.Timeline = append(x.Timeline, Entry{At: t, Service: service, Text: fmt.Sprintf(format, args...), EventID: e.ID, Problem: problem})
	}
	m := e.publisher
	if m == nil {
		return
	}
	schema := m.config.Schema
	if e.InOutbox {
		place := "without order"
		if e.Sequence > 0 && e.Previous == 0 {
			place = fmt.Sprintf("sequence %d, the first of its stream", e.Sequence)
		} else if e.Sequence > 0 {
			place = fmt.Sprintf("sequence %d, after %d", e.Sequence, e.Previous)
		}
		add(e.RecordedAt, false, m.service, "published %s in transaction %s%s, %s", e.Type, e.transaction, e.committed, place)
	}
	for _, stored := range at.stored {
		how := "sent"
		if stored.Transactional {
			how = "half message committed"
			if stored.Checks > 0 {
				how += ", after the broker had checked back " + times(stored.Checks)
			}
		}
		add(stored.Stored, false, "broker", "%s: queue %d of %s, offset %d", how, stored.Queue, stored.Broker, stored.Offset)
	}
	switch {
	case !e.AckedAt.IsZero():
		how := e.confirmed
		if how == "" {
			how = "path not recorded"
		}
		add(e.AckedAt, false, m.service, "confirmed by the broker, %s; %s after it was published", how, sinceText(e.RecordedAt, e.AckedAt))
	case e.Rejected != nil:
		r := e.Rejected
		add(r.Since, true, m.service, "rejected by the broker %s: %s", times(r.Attempts), r.Reason)
		w.verdicts = append(w.verdicts, Verdict{
			State: VerdictStopped, For: "the broker to accept it", Since: r.Since, Because: r.Reason,
			Command: command("rocketflow", "owed", "retry", "--event", e.ID.String(), "--schema", schema), rank: 1,
		})
	case e.InOutbox && e.Discarded == nil:
		w.verdicts = append(w.verdicts, owedVerdict(m, e.running || w.x.Now.Sub(e.RecordedAt) < handover, "", "the event is", e.RecordedAt))
	}
	if d := e.Discarded; d != nil {
		add(d.At, true, m.service, "discarded by an operator (type %s): %s", d.Type, d.Reason)
		if !e.InOutbox || e.Sequence > 0 {
			w.verdicts = append(w.verdicts, Verdict{State: VerdictDone, What: "an operator discarded it: " + d.Reason, Since: d.At})
		}
	}
}

// brokerAnswer is what the broker says about an event.
type brokerAnswer struct {
	asked  bool
	stored []broker.StoredMessage
}

// askBroker asks which copies of the event the broker holds.
func (w *inquiry) askBroker(ctx context.Context, e *explained) (at brokerAnswer) {
	switch {
	case e.Topic == "" || e.AckedAt.IsZero():
		return at
	case w.config.Broker == nil:
		w.x.Broker = "not asked, as none is configured: set --namesrv or ROCKETMQ_NAMESRV"
		return at
	}
	ask, cancel := context.WithTimeout(ctx, brokerTimeout)
	defer cancel()
	stored, err := w.config.Broker.FindMessages(ask, e.Topic, e.ID.String(), e.RecordedAt.Add(-time.Hour), w.x.Now.Add(time.Hour))
	if err != nil {
		w.x.Broker = err.Error()
		return at
	}
	return brokerAnswer{asked: true, stored: stored}
}
