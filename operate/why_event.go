package operate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/broker"
)

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
		Command: m.command("rocketflow", "inspect", "backlog"), rank: 1,
	}
	if !running {
		v.State, v.Because = VerdictStopped, subject+" owed, and no process of "+m.service+" runs that would send what is owed: start one"
	}
	return v
}

// rejectedVerdict is the verdict on an event that the broker rejects.
func (m *member) rejectedVerdict(id uuid.UUID, r Rejection) Verdict {
	return Verdict{
		State: VerdictStopped, For: "the broker to accept it", Since: r.Since, Because: r.Reason,
		Command: m.command("rocketflow", "owed", "retry", "--event", id.String()), rank: 1,
	}
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
		w.x.Timeline, w.x.Omitted, w.verdicts = nil, 0, nil
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
			if err := w.addAuditOf(ctx, s, m, e, list); err != nil {
				return err
			}
			waits, err := w.sagasOf(ctx, s, m, e)
			recorded = recorded || waits
			return err
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
		w.verdicts = append(w.verdicts, m.rejectedVerdict(e.ID, *r))
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
