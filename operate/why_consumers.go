package operate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// reader is what a consumer has recorded of an event.
type reader struct {
	ConsumerStatus
	group    string
	begin    time.Time // events recorded before are settled without a handler
	handles  bool      // some process has a handler of the event's type
	since    time.Time // when that was registered
	movedAt  time.Time // when the position last moved
	took     *int      // milliseconds of the turn that moved it
	failed   int       // attempts of the handler before it handled the event, since an operator retried it last
	without  int64     // the sequence of the event with which the stream went on without this one; 0: it did not
	head     *ParkedStatus
	followed int // parked events behind it
}

// readers reads what the consumers of the schema have recorded of an event.
func (s snapshot) readers(ctx context.Context, e *EventStatus) ([]reader, error) {
	list, err := collect(ctx, s, "EventReaders", func(row pgx.CollectableRow, r *reader) error {
		var (
			born, begin, since, moved, handled, next, parked, headAt *time.Time
			reason, lastError, headReason                            *string
			attempts                                                 *int
			skipped                                                  []int64
			headID                                                   *uuid.UUID
			headError                                                string
			headAttempts                                             int
		)
		err := row.Scan(&r.Name, &r.group, &born, &begin, &since, &r.Position, &moved, &r.took, &skipped, &handled, &r.failed,
			&reason, &attempts, &next, &lastError, &parked, &headID, &headReason, &headError, &headAttempts, &headAt, &r.followed)
		if err != nil {
			return err
		}
		r.handles, r.since = since != nil, orZero(since)
		r.BornAt, r.begin, r.movedAt, r.HandledAt = orZero(born), orZero(begin), orZero(moved), orZero(handled)
		for i := 0; i+1 < len(skipped); i += 2 {
			if skipped[i] < e.Sequence && e.Sequence < skipped[i+1] {
				r.without = skipped[i+1]
			}
		}
		switch {
		case reason != nil:
			r.State = HandlingState(*reason)
			r.Parked = &ParkedStatus{Attempts: *attempts, NextAt: orZero(next), LastError: *lastError, At: *parked}
			if headID != nil {
				r.Parked.Behind = &Blocker{*headID, HandlingState(*headReason)}
				r.head = &ParkedStatus{Attempts: headAttempts, LastError: headError, At: orZero(headAt)}
			}
		case handled != nil, e.Sequence > 0 && r.Position >= e.Sequence:
			r.State = StateHandled
		case e.TimeoutName != "":
			r.State = StateNoTrace
		default:
			r.State = StateNotSeen
		}
		return nil
	}, e.ID.String(), e.Source, e.Topic, e.Subject, e.Sequence, e.Type, maxRows, MaxCount)
	if err != nil {
		return nil, fmt.Errorf("consumers: %w", err)
	}
	return list, nil
}

// reader adds to the time line what a consumer has done with the event, and to the verdicts what it waits for.
func (w *inquiry) reader(ctx context.Context, m *member, e *explained, c reader, at brokerAnswer) error {
	id := e.ID.String()
	add := func(t time.Time, problem bool, format string, args ...any) {
		w.x.Timeline = append(w.x.Timeline, Entry{
			At: t, Service: m.service, Text: c.Name + ": " + fmt.Sprintf(format, args...), EventID: e.ID, Problem: problem, after: afterEvent(e),
		})
	}
	open := func(v Verdict) { w.verdicts = append(w.verdicts, v) }
	pause := w.pauseOf(m, c.Name, e.Topic, e.Type, e.Subject)
	if pause != nil && c.Parked != nil && c.State != StateDead && (pause.Kind == PauseConsumer || c.State == StatePaused) {
		add(c.Parked.At, true, "parked (%s), and %s%s", c.State, pause.since(), heldText(c.followed))
		open(w.pausedVerdict(m, pause, heldText(c.followed)))
		return nil
	}
	switch c.State {
	case StatePaused:
		add(c.Parked.At, true, "parked while its handler or its stream was paused%s", heldText(c.followed))
		open(Verdict{
			State: VerdictWaiting, For: "a process of " + c.Name, Since: c.Parked.At, Because: "it was paused, and is resumed: a process takes it within seconds",
			Command: m.command("rocketflow", "redrive", "parked", "--consumer", c.Name, "--subject", e.Subject),
		})
	case StateHandled:
		if c.without > 0 {
			return w.passedOver(ctx, m, e, c, add)
		}
		w.handled(e, c, add)
		done := Verdict{State: VerdictDone, What: c.Name + " of " + m.service + " has handled it", Since: c.HandledAt, rank: 5}
		if c.Position == e.Sequence && e.Sequence > 0 {
			done.Since = c.movedAt
		}
		if c.handles || e.Type == "" {
			open(done)
		}
	case StateNoTrace: // what became of the timeout says it
	case StateDead:
		add(c.Parked.At, true, "dead letter after %s: %s%s", countOf(c.Parked.Attempts, "failed attempt"), c.Parked.LastError, heldText(c.followed))
		open(Verdict{
			State: VerdictStopped, For: "an operator", Since: c.Parked.At,
			Because: fmt.Sprintf("the handler of %s failed for good%s: %s%s", c.Name, attemptsText(c.Parked.Attempts), c.Parked.LastError, heldText(c.followed)),
			Command: m.command("rocketflow", "redrive", "retry", "--consumer", c.Name, "--event", id),
		})
	case StateRetry:
		add(c.Parked.At, true, "parked after %s: %s%s", countOf(c.Parked.Attempts, "failed attempt"), c.Parked.LastError, heldText(c.followed))
		open(Verdict{
			State: VerdictWaiting, For: nextAttempt(w.x.Now, c.Parked.NextAt) + " of " + c.Name, Since: c.Parked.At,
			Because: fmt.Sprintf("its handler failed%s: %s%s", attemptsText(c.Parked.Attempts), c.Parked.LastError, heldText(c.followed)),
			Command: m.command("rocketflow", "redrive", "parked", "--consumer", c.Name, "--subject", e.Subject),
		})
	case StateUnhandled:
		add(c.Parked.At, true, "parked: the process that received it has no handler of %s", e.Type)
		open(Verdict{
			State: VerdictStopped, For: "a process of " + c.Name + " that handles " + e.Type, Since: c.Parked.At,
			Because: "only a process of an older or newer version has the handler: start one, or retire the handler",
			Command: m.command("rocketflow", "redrive", "retire", "--consumer", c.Name, "--topic", e.Topic, "--type", e.Type),
		})
	case StateGap, StateBusy:
		w.behind(m, e, c, add)
	default:
		return w.notSeen(ctx, m, e, c, at, pause, add)
	}
	return nil
}

// pauseOf returns the pause that holds an event in a consumer, that of the whole consumer first; nil: none does.
func (w *inquiry) pauseOf(m *member, consumer, topic, eventType, subject string) *Pause {
	list := w.paused[m.key] // the consumers' come first
	if i := slices.IndexFunc(list, func(p Pause) bool { return p.holds(consumer, topic, eventType, subject) }); i >= 0 {
		return &list[i]
	}
	return nil
}

// pausedVerdict says that something waits because of a pause. held says what is behind it.
func (w *inquiry) pausedVerdict(m *member, p *Pause, held string) Verdict {
	return Verdict{
		State: VerdictStopped, For: fmt.Sprintf("an operator to resume %v", p.PauseTarget), Since: p.Since, Because: "it is " + p.since() + held,
		Command: m.command(p.resumeCommand()...),
	}
}

// afterEvent is the place in the time line of an entry without a time of its own.
func afterEvent(e *explained) time.Time {
	if e.AckedAt.IsZero() {
		return e.RecordedAt
	}
	return e.AckedAt
}

func heldText(followed int) string {
	if followed == 0 {
		return ""
	}
	return "; " + countOf(followed, "event") + " of the stream held behind it"
}

func attemptsText(attempts int) string {
	if attempts < 2 {
		return ""
	}
	return " " + times(attempts)
}

func nextAttempt(now, next time.Time) string {
	switch {
	case next.IsZero():
		return "the next attempt"
	case next.After(now):
		return "the next attempt in " + sinceText(now, next)
	}
	return "the next attempt, which is due,"
}

func (w *inquiry) handled(e *explained, c reader, add func(time.Time, bool, string, ...any)) {
	switch {
	case !c.HandledAt.IsZero():
		add(c.HandledAt, false, "handled%s%s", c.attempt(), lagText(e, c.HandledAt))
	case !c.handles && e.Type != "":
		add(time.Time{}, false, "has no handler of %s and went on (position %d)", e.Type, c.Position)
	case c.Position == e.Sequence && !c.movedAt.IsZero():
		took := ""
		if c.took != nil {
			took = fmt.Sprintf(", in a turn of %s", (time.Duration(*c.took) * time.Millisecond).String())
		}
		add(c.movedAt, false, "handled%s%s%s", c.attempt(), took, lagText(e, c.movedAt))
	case !c.movedAt.IsZero():
		add(time.Time{}, false, "handled, before %s, when a later event of the stream was (position %d)", c.movedAt.UTC().Format("15:04:05.000"), c.Position)
	default:
		add(time.Time{}, false, "handled (position %d)", c.Position)
	}
}

// passedOver explains an event without which the stream went on, because an operator accepted the gap.
func (w *inquiry) passedOver(ctx context.Context, m *member, e *explained, c reader, add func(time.Time, bool, string, ...any)) error {
	by := "an operator"
	since := time.Time{}
	if e.publisher != nil {
		var next uuid.UUID
		err := e.publisher.read(ctx, func(s snapshot) error {
			return s.tx.QueryRow(ctx, s.sql.Get("EventAt"), e.Source, e.Topic, e.Subject, c.without).Scan(&next)
		})
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("event after the gap: %w", err)
		}
		err = m.read(ctx, func(s snapshot) error {
			list, err := s.audited(ctx, []string{next.String()})
			for _, a := range list {
				if a.Action == ActionAcceptGap && a.state(a.Filter).Consumer == c.Name {
					by, since = a.Actor, a.At
					if a.Reason != "" {
						by += " (" + a.Reason + ")"
					}
				}
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	add(since, true, "passed over: the stream went on without it with sequence %d, because %s accepted the gap", c.without, by)
	if !c.handles && e.Type != "" {
		return nil
	}
	v := Verdict{
		State: VerdictStopped, For: "an operator to decide whether " + c.Name + " has to handle it", Since: since,
		Because: fmt.Sprintf("%s accepted the gap, so its stream went on without it (sequence %d); sent again, it becomes a dead letter that can be retried", by, c.without),
	}
	if e.publisher != nil {
		v.Command = e.publisher.command("rocketflow", "resend", "--event", e.ID.String())
	}
	w.verdicts = append(w.verdicts, v)
	return nil
}

// attempt says which attempt handled the event, unless the first did.
func (c reader) attempt() string {
	if c.failed == 0 {
		return ""
	}
	return fmt.Sprintf(" at attempt %d", c.failed+1)
}

// lagText is how long after its publication an event was handled.
func lagText(e *explained, at time.Time) string {
	if e.RecordedAt.IsZero() {
		return ""
	}
	return ", " + sinceText(e.RecordedAt, at) + " after it was published"
}

// behind explains an event that waits for others of its stream.
func (w *inquiry) behind(m *member, e *explained, c reader, add func(time.Time, bool, string, ...any)) {
	v := Verdict{State: VerdictWaiting, Since: c.Parked.At}
	head := c.Parked.Behind
	switch {
	case head != nil:
		add(c.Parked.At, true, "parked behind event %s of its stream, which is %s%s", head.EventID, headState(head.Reason), errorText(c.head.LastError))
		v.For = "event " + head.EventID.String() + " of its stream"
		v.Because = fmt.Sprintf("that one is %s in %s%s%s", headState(head.Reason), c.Name, attemptsText(c.head.Attempts), errorText(c.head.LastError))
		v.Command = command("rocketflow", "why", head.EventID.String())
		if head.Reason == StatePaused {
			v.State = VerdictStopped
		}
		if head.Reason == StateDead {
			v.State = VerdictStopped
			v.Command = m.command("rocketflow", "redrive", "retry", "--consumer", c.Name, "--event", head.EventID.String())
		}
	case c.State == StateBusy:
		add(c.Parked.At, false, "parked while the handler of an earlier event takes long")
		v.For, v.Because = "the handler of an earlier event of its stream in "+c.Name, "it has not returned"
		v.Command = m.command("rocketflow", "redrive", "parked", "--consumer", c.Name, "--subject", e.Subject)
	default:
		add(c.Parked.At, true, "parked: sequence %d of its stream is missing, the position is %d", e.Previous, c.Position)
		v.State = VerdictStopped
		v.For = fmt.Sprintf("sequence %d of its stream", e.Previous)
		v.Because = fmt.Sprintf("%s has not received it (position %d) and requests it from %s, which may not run, or not keep it any more", c.Name, c.Position, e.Source)
		v.Command = m.command("rocketflow", "redrive", "accept", "--consumer", c.Name, e.ID.String())
	}
	w.verdicts = append(w.verdicts, v)
}

func headState(s HandlingState) string {
	switch s {
	case StateDead:
		return "a dead letter"
	case StateRetry:
		return "waiting for its next attempt"
	case StateGap:
		return "waiting for an earlier one"
	case StatePaused:
		return "held by a pause"
	}
	return string(s)
}

func errorText(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

const (
	brokerUnknown queueState = iota // the broker wasn't asked or doesn't answer
	brokerUnread                    // in its queue, before what the group has read
	brokerLost                      // the broker doesn't hold it
	brokerPassed                    // in its queue, and the group has read past it
)
