package operate

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/broker"
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
	skipped  bool      // the stream was advanced past the event without handling it
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
			r.skipped = r.skipped || skipped[i] < e.Sequence && e.Sequence < skipped[i+1]
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
	schema, id := m.config.Schema, e.ID.String()
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
			Command: command("rocketflow", "redrive", "parked", "--consumer", c.Name, "--subject", e.Subject, "--schema", schema),
		})
	case StateHandled:
		w.handled(e, c, add)
		done := Verdict{State: VerdictDone, What: c.Name + " of " + m.service + " has handled it", Since: c.HandledAt, rank: 5}
		if c.Position == e.Sequence && e.Sequence > 0 {
			done.Since = c.movedAt
		}
		if !c.skipped && (c.handles || e.Type == "") {
			open(done)
		}
	case StateNoTrace: // what became of the timeout says it
	case StateDead:
		add(c.Parked.At, true, "dead letter after %s: %s%s", countOf(c.Parked.Attempts, "failed attempt"), c.Parked.LastError, heldText(c.followed))
		open(Verdict{
			State: VerdictStopped, For: "an operator", Since: c.Parked.At,
			Because: fmt.Sprintf("the handler of %s failed for good%s: %s%s", c.Name, attemptsText(c.Parked.Attempts), c.Parked.LastError, heldText(c.followed)),
			Command: command("rocketflow", "redrive", "retry", "--consumer", c.Name, "--event", id, "--schema", schema),
		})
	case StateRetry:
		add(c.Parked.At, true, "parked after %s: %s%s", countOf(c.Parked.Attempts, "failed attempt"), c.Parked.LastError, heldText(c.followed))
		open(Verdict{
			State: VerdictWaiting, For: nextAttempt(w.x.Now, c.Parked.NextAt) + " of " + c.Name, Since: c.Parked.At,
			Because: fmt.Sprintf("its handler failed%s: %s%s", attemptsText(c.Parked.Attempts), c.Parked.LastError, heldText(c.followed)),
			Command: command("rocketflow", "redrive", "parked", "--consumer", c.Name, "--subject", e.Subject, "--schema", schema),
		})
	case StateUnhandled:
		add(c.Parked.At, true, "parked: the process that received it has no handler of %s", e.Type)
		open(Verdict{
			State: VerdictStopped, For: "a process of " + c.Name + " that handles " + e.Type, Since: c.Parked.At,
			Because: "only a process of an older or newer version has the handler: start one, or retire the handler",
			Command: command("rocketflow", "redrive", "retire", "--consumer", c.Name, "--topic", e.Topic, "--type", e.Type, "--schema", schema),
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
	list := w.paused[m.config.Schema] // the consumers' come first
	if i := slices.IndexFunc(list, func(p Pause) bool { return p.holds(consumer, topic, eventType, subject) }); i >= 0 {
		return &list[i]
	}
	return nil
}

// pausedVerdict says that something waits because of a pause. held says what is behind it.
func (w *inquiry) pausedVerdict(m *member, p *Pause, held string) Verdict {
	return Verdict{
		State: VerdictStopped, For: fmt.Sprintf("an operator to resume %v", p.PauseTarget), Since: p.Since, Because: "it is " + p.since() + held,
		Command: p.resumeCommand(m.config.Schema),
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
	case c.skipped:
		add(time.Time{}, true, "passed over: a later event of the stream was handled without it (position %d)", c.Position)
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
	schema := m.config.Schema
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
			v.Command = command("rocketflow", "redrive", "retry", "--consumer", c.Name, "--event", head.EventID.String(), "--schema", schema)
		}
	case c.State == StateBusy:
		add(c.Parked.At, false, "parked while the handler of an earlier event takes long")
		v.For, v.Because = "the handler of an earlier event of its stream in "+c.Name, "it has not returned"
		v.Command = command("rocketflow", "redrive", "parked", "--consumer", c.Name, "--subject", e.Subject, "--schema", schema)
	default:
		add(c.Parked.At, true, "parked: sequence %d of its stream is missing, the position is %d", e.Previous, c.Position)
		v.State = VerdictStopped
		v.For = fmt.Sprintf("sequence %d of its stream", e.Previous)
		v.Because = fmt.Sprintf("%s has not received it (position %d) and requests it from %s, which may not run, or not keep it any more", c.Name, c.Position, e.Source)
		v.Command = command("rocketflow", "redrive", "accept", "--consumer", c.Name, e.ID.String(), "--schema", schema)
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

// notSeen explains an event of which a consumer has recorded nothing, by what the broker says.
func (w *inquiry) notSeen(ctx context.Context, m *member, e *explained, c reader, at brokerAnswer, pause *Pause, add func(time.Time, bool, string, ...any)) error {
	switch {
	case e.Topic == "" || e.TimeoutName != "" || e.publisher == nil || !e.InOutbox:
		return nil
	case e.Sequence == 0 && !c.handles:
		add(time.Time{}, false, "has no handler of %s", e.Type)
		return nil
	case e.RecordedAt.Before(c.begin):
		add(time.Time{}, false, "begins with later events (%s)", c.begin.UTC().Format(time.RFC3339))
		return nil
	case e.AckedAt.IsZero():
		add(time.Time{}, false, "has not received it")
		return nil
	}
	before := e.RecordedAt.Before(c.since) || e.RecordedAt.Before(c.BornAt) // then it need not have handled it
	schema := m.config.Schema
	v := Verdict{State: VerdictWaiting, For: c.Name + " of " + m.service + " to read it", Since: e.AckedAt}
	v.Command = command("rocketflow", "inspect", "backlog", "--schema", schema)
	resend := command("rocketflow", "resend", "--event", e.ID.String(), "--schema", e.publisher.config.Schema)
	position, state := w.queueOf(ctx, c, e, at)
	if state == brokerPassed {
		// It may have been handled since the table was read.
		again, err := w.readAgain(ctx, m, e, c.Name)
		if err != nil {
			return err
		}
		if again.State != StateNotSeen {
			return w.reader(ctx, m, e, again, at)
		}
	}
	if before && (state == brokerLost || state == brokerPassed) {
		add(time.Time{}, false, "has no record of it: it was published before the consumer had a handler of %s", e.Type)
		return nil
	}
	if pause != nil && (state == brokerUnknown || state == brokerUnread) {
		add(time.Time{}, true, "has recorded nothing of it, and %s", pause.since())
		w.verdicts = append(w.verdicts, w.pausedVerdict(m, pause, ""))
		return nil
	}
	switch state {
	case brokerUnknown:
		v.State = VerdictUnknown
		v.Because = "it has recorded nothing of it, and the broker was not asked what it has read"
		if !at.asked {
			v.Command = command("rocketflow", "why", e.ID.String(), "--namesrv", "HOST:PORT")
		}
		add(time.Time{}, true, "has recorded nothing of it")
	case brokerUnread:
		unread := countOf(int(max(position.offset-max(position.Committed, position.Begin), 0)), "unread message")
		v.Because = fmt.Sprintf("it is unread in queue %d of %s, and group %s has %s before it: see that a process of %s runs", position.Queue, position.Broker, c.group, unread, m.service)
		v.Command = ""
		if position.never {
			v.State = VerdictStopped
			v.Because = fmt.Sprintf("group %s has never read the topic: start a process of %s with the consumer; if one runs, see in its log whether the broker refuses it", c.group, m.service)
		}
		add(time.Time{}, true, "has not read it: it has %s in the queue before it", unread)
	case brokerLost:
		v.State = VerdictLost
		v.For = "the event to be sent again"
		v.Because = fmt.Sprintf("the broker confirmed it and holds it no more, and %s has no record of it", c.Name)
		v.Command = resend
		if position.Committed > position.End {
			v.Because += fmt.Sprintf("; before it is sent again, a consumer of group %s must run for a minute: the group is beyond the end of queue %d of %s and would not read it", c.group, position.Queue, position.Broker)
		}
		add(time.Time{}, true, "has recorded nothing of it, and the broker doesn't hold it any more")
	case brokerPassed:
		v.State = VerdictLost
		v.For = "somebody to decide whether it was handled"
		v.Because = fmt.Sprintf("group %s has read past it (offset %d of queue %d of %s), but %s has no record of it: rows of the tables position or inbox were deleted, or the group's offsets were moved", c.group, position.offset, position.Queue, position.Broker, c.Name)
		v.Command = resend
		add(time.Time{}, true, "has recorded nothing of it, though its group has read past it")
	}
	w.verdicts = append(w.verdicts, v)
	return nil
}

// readAgain reads again what a consumer has recorded of the event.
func (w *inquiry) readAgain(ctx context.Context, m *member, e *explained, consumer string) (found reader, err error) {
	err = m.read(ctx, func(s snapshot) error {
		list, err := s.readers(ctx, &e.EventStatus)
		if i := slices.IndexFunc(list, func(c reader) bool { return c.Name == consumer }); i >= 0 {
			found = list[i]
		}
		return err
	})
	return found, err
}

// queueState says where an event that a consumer has not recorded is.
type queueState int

const (
	brokerUnknown queueState = iota // the broker wasn't asked or doesn't answer
	brokerUnread                    // in its queue, before what the group has read
	brokerLost                      // the broker doesn't hold it
	brokerPassed                    // in its queue, and the group has read past it
)

// indexDelay is how long after it stored a message a broker's index may not have it yet.
const indexDelay = 10 * time.Second

type queuePlace struct {
	broker.QueuePosition
	offset int64 // of the event
	never  bool  // the group has read no queue of the topic
}

// queueOf asks the broker how far the consumer's group is in the queue that has the event.
func (w *inquiry) queueOf(ctx context.Context, c reader, e *explained, at brokerAnswer) (queuePlace, queueState) {
	if !at.asked || c.group == "" {
		return queuePlace{}, brokerUnknown
	}
	ask, cancel := context.WithTimeout(ctx, brokerTimeout)
	defer cancel()
	positions, err := w.config.Broker.QueuePositions(ask, c.group, e.Topic)
	if err != nil {
		w.x.Broker = err.Error()
		return queuePlace{}, brokerUnknown
	}
	if len(at.stored) == 0 {
		if w.x.Now.Sub(e.AckedAt) < indexDelay {
			return queuePlace{}, brokerUnknown
		}
		if i := slices.IndexFunc(positions, func(p broker.QueuePosition) bool { return p.Committed > p.End }); i >= 0 {
			return queuePlace{QueuePosition: positions[i]}, brokerLost
		}
		return queuePlace{}, brokerLost
	}
	never := !slices.ContainsFunc(positions, func(p broker.QueuePosition) bool { return p.Committed >= 0 })
	state, place := brokerPassed, queuePlace{}
	for _, stored := range at.stored {
		i := slices.IndexFunc(positions, func(p broker.QueuePosition) bool { return p.Broker == stored.Broker && p.Queue == stored.Queue })
		if i < 0 {
			continue
		}
		place = queuePlace{positions[i], stored.Offset, never}
		if stored.Offset >= positions[i].Committed {
			return place, brokerUnread
		}
	}
	return place, state
}

// sagasOf adds the transitions that the event caused, and the saga that it waits for.
func (w *inquiry) sagasOf(ctx context.Context, s snapshot, m *member, e *explained) error {
	if e.Subject == "" {
		return nil
	}
	type transition struct {
		saga, key, from, to string
		at                  time.Time
	}
	list, err := collect(ctx, s, "CausedTransitions", func(row pgx.CollectableRow, t *transition) error {
		return row.Scan(&t.saga, &t.key, &t.from, &t.to, &t.at)
	}, e.Subject, e.ID.String())
	if err != nil {
		return fmt.Errorf("sagas: %w", err)
	}
	for _, t := range list {
		text := fmt.Sprintf("saga %s of %s: %s → %s", t.saga, t.key, t.from, t.to)
		if t.from == "" {
			text = fmt.Sprintf("saga %s of %s began in %s", t.saga, t.key, t.to)
		}
		w.x.Timeline = append(w.x.Timeline, Entry{At: t.at, Service: m.service, Text: text, EventID: e.ID})
	}
	waiting, err := s.waitingEvents(ctx, WaitingFilter{Key: e.Subject, EventID: e.ID, Limit: 10})
	if err != nil {
		return fmt.Errorf("waiting events: %w", err)
	}
	for _, v := range waiting {
		w.waitingEvent(m, v)
	}
	return nil
}

// waitingEvent adds an event that waits for a saga.
func (w *inquiry) waitingEvent(m *member, e WaitingEvent) {
	state := e.State
	if state == "" {
		state = "not begun"
	}
	w.x.Timeline = append(w.x.Timeline, Entry{
		At: e.ArrivedAt, Service: m.service, EventID: e.Event.ID, Problem: true,
		Text: fmt.Sprintf("saga %s of %s (%s): %s waits, status %s%s", e.Saga, e.Key, state, e.Event.Type, e.Status, errorText(e.LastError)),
	})
	v := Verdict{State: VerdictWaiting, For: "saga " + e.Saga + " of " + e.Key, Since: e.ArrivedAt, rank: 2}
	retry := command("rocketflow", "saga", "retry", e.Key, "--event", e.Event.ID.String(), "--schema", m.config.Schema)
	switch e.Status {
	case WaitingForState:
		v.Because = fmt.Sprintf("in state %s it doesn't accept %s; the event expires in %s", state, e.Event.Type, sinceText(w.x.Now, e.ExpiresAt))
		if !e.Begun {
			v.Because = fmt.Sprintf("it has not begun; the event expires in %s", sinceText(w.x.Now, e.ExpiresAt))
		}
		v.Command = command("rocketflow", "inspect", "saga", e.Key, "--schema", m.config.Schema)
	case WaitingForRetry:
		v.For = nextAttempt(w.x.Now, e.NextAt) + " of " + v.For
		v.Because = fmt.Sprintf("its function failed%s: %s", attemptsText(e.Attempts), e.LastError)
		v.Command = retry
	case WaitingFailed:
		v.State, v.For = VerdictStopped, "an operator"
		v.Because = fmt.Sprintf("the function of saga %s failed for good%s: %s", e.Saga, attemptsText(e.Attempts), e.LastError)
		v.Command = retry
	case WaitingExpired:
		v.State, v.For = VerdictStopped, "an operator"
		v.Because = fmt.Sprintf("no state of saga %s of %s accepted %s in time", e.Saga, e.Key, e.Event.Type)
		v.Command = retry
	}
	w.verdicts = append(w.verdicts, v)
}
