package operate

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Bounds of the explanation of a key.
const (
	maxKeyEvents = 50        // events of each stream
	maxKeyParked = 20        // parked events of each stream and consumer; the first says what the others wait for
	maxKeyEnded  = int64(50) // timeouts that have ended
	maxRejected  = 10        // events that the broker rejects
	rejectedScan = 1000      // rejected events among which older ones are searched
)

// key explains everything with a key: the streams of a subject, the sagas and the timeouts. found is false if no schema has anything.
func (w *inquiry) key(ctx context.Context, key string) (found bool, err error) {
	w.verdicts = nil
	var newest []explained
	var lastEnded *EndedTimeout
	audited := 0
	changed := []string{key} // what operators may have changed, in any of the schemas
	for i := range w.members {
		m := &w.members[i]
		err := m.read(ctx, func(s snapshot) error {
			var status SubjectStatus
			if err := s.subjectStatus(ctx, SubjectFilter{Subject: key, Limit: maxKeyEvents}, maxKeyParked, &status); err != nil {
				return err
			}
			sagas, err := s.sagas(ctx, SagaFilter{Key: key}, false)
			if err != nil {
				return err
			}
			timeouts, err := s.timeouts(ctx, key, maxSagaTimeouts)
			if err != nil {
				return err
			}
			ended, err := s.endedTimeouts(ctx, key, true, maxKeyEnded)
			if err != nil {
				return err
			}
			found = found || !status.Empty() || len(sagas) > 0 || len(timeouts) > 0 || len(ended) > 0
			changed = append(changed, idsOf(&status, sagas)...)
			var running bool
			if err := s.tx.QueryRow(ctx, s.sql.Get("ServiceRuns")).Scan(&running); err != nil {
				return err
			}
			rejected, err := w.streamEvents(ctx, s, m, running, &status)
			if err != nil {
				return err
			}
			found = found || rejected
			newest = append(newest, newestOf(m, key, status.Events)...)
			if err := w.parkedOf(ctx, s, m, key, status.Parked); err != nil {
				return err
			}
			for _, v := range sagas {
				w.saga(m, running, v)
			}
			armed := slices.Clone(timeouts)
			for _, v := range sagas {
				armed = append(armed, v.Timeouts...)
			}
			w.endedTimeouts(m, ended, armed)
			if len(ended) > 0 && (lastEnded == nil || ended[0].EndedAt.After(lastEnded.EndedAt)) {
				lastEnded = &ended[0]
			}
			if len(ended) == int(maxKeyEnded) {
				w.x.Omitted++ // at least
			}
			for _, v := range timeouts {
				w.timeout(m, running, v, "timeout "+v.Name+" of "+v.Key)
			}
			return nil
		})
		if err != nil {
			return false, fmt.Errorf("schema %s: %w", m.config.Schema, err)
		}
	}
	for i := range w.members {
		m := &w.members[i]
		err := m.read(ctx, func(s snapshot) error {
			list, err := s.audited(ctx, changed)
			w.addAudited(m, list)
			audited += len(list)
			return err
		})
		if err != nil {
			return false, fmt.Errorf("schema %s: %w", m.config.Schema, err)
		}
	}
	if !found && audited == 0 {
		return false, nil
	}
	w.x.Kind, w.x.Title = ExplainsKey, key
	// The newest event of each stream says how far the consumers are, those included that have never read the stream.
	for i := range newest {
		if _, _, err := w.consumers(ctx, &newest[i], w.askBroker(ctx, &newest[i])); err != nil {
			return false, err
		}
	}
	if len(w.verdicts) == 0 && lastEnded != nil {
		w.verdicts = append(w.verdicts, lastEnded.verdict(false))
	}
	switch {
	case len(w.verdicts) > 0:
	case found:
		w.verdicts = append(w.verdicts, Verdict{State: VerdictDone, What: "nothing waits"})
	default:
		w.verdicts = append(w.verdicts, Verdict{State: VerdictUnknown, Because: "only what operators did is recorded; what it was about is in no schema that was read, or not any more"})
	}
	w.x.conclude(w.verdicts)
	return true, nil
}

// newestOf returns the newest event of each stream that the schema has published.
func newestOf(m *member, subject string, events []StreamEvent) (list []explained) {
	seen := map[string]bool{}
	for _, e := range events { // the newest of each stream come first
		if stream := e.Source + "\x00" + e.Topic; !seen[stream] {
			seen[stream] = true
			list = append(list, explained{publisher: m, EventStatus: EventStatus{
				ID: e.ID, Type: e.Type, Source: e.Source, Topic: e.Topic, Subject: subject, Sequence: e.Sequence, Previous: e.Previous, RecordedAt: e.RecordedAt,
				InOutbox: true, AckedAt: e.AckedAt,
			}})
		}
	}
	return list
}

// streamEvents adds the events that the schema has published in the streams of the subject, and those of the subject that the broker rejects,
// which may have no order; rejected is true if there are any.
func (w *inquiry) streamEvents(ctx context.Context, s snapshot, m *member, running bool, status *SubjectStatus) (rejected bool, err error) {
	list, err := s.rejectedOf(ctx, status.Events, w.x.ID)
	if err != nil {
		return false, err
	}
	of := map[uuid.UUID]bool{}
	for _, r := range list {
		of[r.EventID] = true
		w.x.Timeline = append(w.x.Timeline, Entry{
			At: r.RecordedAt, Service: m.service, EventID: r.EventID, Problem: true,
			Text: fmt.Sprintf("published %s to topic %s, rejected by the broker %s: %s", r.Type, r.Topic, times(r.Attempts), r.Reason),
		})
		w.verdicts = append(w.verdicts, m.rejectedVerdict(r.EventID, r.Rejection))
	}
	owed, oldest := 0, time.Time{}
	perStream := map[string]int{}
	for _, e := range status.Events {
		perStream[e.Source+"\x00"+e.Topic]++
		if of[e.ID] {
			continue
		}
		text := fmt.Sprintf("published %s to topic %s", e.Type, e.Topic)
		if e.AckedAt.IsZero() {
			text += ", not confirmed by the broker yet"
			owed, oldest = owed+1, earlier(oldest, e.RecordedAt)
		} else if d := e.AckedAt.Sub(e.RecordedAt); d >= time.Second {
			text += ", confirmed by the broker " + sinceText(e.RecordedAt, e.AckedAt) + " later"
		}
		w.x.Timeline = append(w.x.Timeline, Entry{At: e.RecordedAt, Service: m.service, Text: text, EventID: e.ID, Problem: e.AckedAt.IsZero()})
	}
	if owed > 0 {
		w.verdicts = append(w.verdicts, owedVerdict(m, running || w.x.Now.Sub(oldest) < handover, " of "+countOf(owed, "event"), "they are", oldest))
	}
	for _, n := range perStream {
		if n == maxKeyEvents {
			w.x.Omitted++ // at least
		}
	}
	return len(list) > 0, nil
}

// rejectedEvent is an event that the broker rejects.
type rejectedEvent struct {
	EventID     uuid.UUID
	Type, Topic string
	RecordedAt  time.Time
	Rejection
}

// rejectedOf returns the first events of a subject that the broker rejects: those of the events given, and older ones, which are searched
// among the first that are rejected.
func (s snapshot) rejectedOf(ctx context.Context, events []StreamEvent, subject string) ([]rejectedEvent, error) {
	owed := []string{}
	for _, e := range events {
		if e.AckedAt.IsZero() {
			owed = append(owed, e.ID.String())
		}
	}
	list, err := collect(ctx, s, "RejectedOf", func(row pgx.CollectableRow, r *rejectedEvent) error {
		return row.Scan(&r.EventID, &r.Type, &r.Topic, &r.RecordedAt, &r.Reason, &r.Attempts, &r.Since)
	}, subject, owed, rejectedScan, maxRejected)
	if err != nil {
		return nil, fmt.Errorf("rejected events: %w", err)
	}
	return list, nil
}

// parkedOf adds parked events, and a verdict for the first of each stream and consumer, and for each without order.
func (w *inquiry) parkedOf(ctx context.Context, s snapshot, m *member, subject string, list []ParkedInStream) error {
	seen := map[string]bool{}
	for _, p := range list {
		stream := p.Consumer + "\x00" + p.Source + "\x00" + p.Topic
		if p.Sequence > 0 && seen[stream] {
			continue
		}
		seen[stream] = p.Sequence > 0
		behind := 0 // the list may end before the stream does
		err := s.tx.QueryRow(ctx, s.sql.Get("ParkedBehind"), p.Consumer, p.Source, p.Topic, subject, p.Sequence, MaxCount).Scan(&behind)
		if err != nil {
			return fmt.Errorf("parked events behind %s: %w", p.EventID, err)
		}
		held := heldText(behind)
		w.x.Timeline = append(w.x.Timeline, Entry{
			At: p.At, Service: m.service, EventID: p.EventID, Problem: true,
			Text: fmt.Sprintf("%s: %s parked (%s)%s%s", p.Consumer, p.Type, parkedWord(p.Reason), errorText(p.LastError), held),
		})
		v := Verdict{State: VerdictWaiting, Since: p.At, Command: command("rocketflow", "why", p.EventID.String())}
		pause := w.pauseOf(m, p.Consumer, p.Topic, p.Type, w.x.ID)
		if pause != nil && p.Reason != StateDead && (pause.Kind == PauseConsumer || p.Reason == StatePaused) {
			w.verdicts = append(w.verdicts, w.pausedVerdict(m, pause, held))
			continue
		}
		switch p.Reason {
		case StatePaused:
			v.For, v.Because = "a process of "+p.Consumer, "it was paused, and is resumed: a process takes it within seconds"+held
		case StateDead:
			v.State, v.For = VerdictStopped, "an operator"
			v.Because = fmt.Sprintf("the handler of %s failed for good on %s%s: %s%s", p.Consumer, p.Type, attemptsText(p.Attempts), p.LastError, held)
			v.Command = m.command("rocketflow", "redrive", "retry", "--consumer", p.Consumer, "--event", p.EventID.String())
		case StateRetry:
			v.For = nextAttempt(w.x.Now, p.NextAt) + " of " + p.Consumer
			v.Because = fmt.Sprintf("its handler failed on %s%s: %s%s", p.Type, attemptsText(p.Attempts), p.LastError, held)
		case StateUnhandled:
			v.State, v.For = VerdictStopped, "a process of "+p.Consumer+" that handles "+p.Type
			v.Because = "no process that received it has the handler" + held
		case StateBusy:
			v.For, v.Because = "the handler of an earlier event in "+p.Consumer, "it has not returned"+held
		default:
			v.State = VerdictStopped
			v.For = fmt.Sprintf("sequence %d of its stream in %s", p.Previous, p.Consumer)
			v.Because = fmt.Sprintf("it has not come: %s requests it from %s, which may not run, or not keep it any more%s", p.Consumer, p.Source, held)
			v.Command = m.command("rocketflow", "redrive", "accept", "--consumer", p.Consumer, p.EventID.String())
		}
		w.verdicts = append(w.verdicts, v)
	}
	return nil
}

func parkedWord(s HandlingState) string {
	if s == StateDead {
		return "dead letter"
	}
	return string(s)
}

// saga adds a saga's transitions, its deadline, and the events that wait for it.
func (w *inquiry) saga(m *member, running bool, v Saga) {
	name := "saga " + v.Name + " of " + v.Key
	for i, t := range v.Transitions {
		text := fmt.Sprintf("%s: %s → %s, by %s", name, t.From, t.To, t.CauseType)
		switch {
		case t.From == "":
			text = fmt.Sprintf("%s began in %s, by %s", name, t.To, t.CauseType)
		case strings.HasPrefix(t.CauseType, sagaDeadline):
			text = fmt.Sprintf("%s: %s → %s, because its deadline fired", name, t.From, t.To)
		}
		if i > 0 {
			text += ", after " + sinceText(v.Transitions[i-1].At, t.At)
		}
		w.x.Timeline = append(w.x.Timeline, Entry{At: t.At, Service: m.service, Text: text, EventID: t.CauseID})
	}
	for _, e := range v.Waiting {
		w.waitingEvent(m, e)
	}
	if v.StartedAt.IsZero() {
		return
	}
	if !v.FinishedAt.IsZero() {
		w.verdicts = append(w.verdicts, Verdict{State: VerdictDone, What: name + " has finished in " + v.State, Since: v.FinishedAt})
		return
	}
	if len(v.Timeouts) == 0 {
		w.verdicts = append(w.verdicts, Verdict{
			State: VerdictWaiting, For: "an event that moves " + name, Since: v.ChangedAt, Because: "it is in state " + v.State + ", which has no deadline",
			Command: m.command("rocketflow", "inspect", "saga", v.Key), rank: 3,
		})
	}
	for _, t := range v.Timeouts {
		w.timeout(m, running, t, "the deadline of "+name+" in state "+v.State)
	}
}

// sagaDeadline begins the types of the events of sagas' deadlines, which package saga makes.
const sagaDeadline = "saga.deadline."

// timeout adds an armed timeout.
func (w *inquiry) timeout(m *member, running bool, t Timeout, what string) {
	late := w.x.Now.Sub(t.DueAt)
	holder := "fires from Postgres"
	if t.HandedOver {
		holder = "the broker holds its timer"
	}
	add := func(at time.Time, problem bool, text string) {
		w.x.Timeline = append(w.x.Timeline, Entry{At: at, Service: m.service, Text: text, EventID: t.EventID, Problem: problem})
	}
	add(t.ArmedAt, false, fmt.Sprintf("%s: armed for %s; %s", what, dueText(t.DueAt), holder))
	v := Verdict{State: VerdictWaiting, For: what, Since: t.ArmedAt, Because: fmt.Sprintf("it fires in %s", sinceText(w.x.Now, t.DueAt)), rank: 3,
		Command: m.command("rocketflow", "inspect", "timeouts", t.Key)}
	switch {
	case !t.StuckAt.IsZero():
		add(t.StuckAt, true, fmt.Sprintf("%s: stuck: its event was sent %s and isn't handled", what, times(t.Sends)))
		v.State, v.Since = VerdictStopped, t.DueAt
		v.Because = fmt.Sprintf("it was due %s ago and its event was sent %s, but no consumer of topic %s handles it: see that one runs, with the fence of the timeouts before it", sinceText(t.DueAt, w.x.Now), times(t.Sends), t.Topic)
	case late > 0:
		v.Since = t.DueAt
		v.Because = fmt.Sprintf("it is due since %s; its event was sent %s again: see that a consumer of topic %s runs", sinceText(t.DueAt, w.x.Now), times(t.Sends), t.Topic)
		if t.Sends == 0 {
			v.Because = fmt.Sprintf("it is due since %s and its event is on the way to topic %s", sinceText(t.DueAt, w.x.Now), t.Topic)
		}
		if !running && late > handover {
			v.State = VerdictStopped
			v.Because = fmt.Sprintf("it is due since %s, and no process of %s runs in which it could fire: start one", sinceText(t.DueAt, w.x.Now), m.service)
		}
		add(t.DueAt, true, what+": due, not fired yet")
	}
	w.verdicts = append(w.verdicts, v)
}
