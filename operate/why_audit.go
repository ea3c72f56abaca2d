package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// maxAudited bounds the changes by operators in the time line, of each schema.
const maxAudited = 50

// auditedChange is a change that an operator made, from the audit.
type auditedChange struct {
	AuditEntry
	named []string // which of the ids that were asked for it names
}

// audited reads the changes by operators that name any of the ids, the oldest first.
func (s snapshot) audited(ctx context.Context, ids []string) ([]auditedChange, error) {
	slices.Sort(ids)
	list, err := collect(ctx, s, "AuditOfAny", func(row pgx.CollectableRow, a *auditedChange) error {
		var filter string
		var before, after *string
		err := row.Scan(&a.ID, &a.At, &a.Actor, &a.Action, &a.Reason, &filter, &a.Changed, &before, &after, &a.named)
		a.Filter, a.Before, a.After = json.RawMessage(filter), rawJSON(before), rawJSON(after)
		return err
	}, slices.DeleteFunc(slices.Compact(ids), func(id string) bool { return id == "" }), maxAudited)
	if err != nil {
		return nil, fmt.Errorf("changes by operators: %w", err)
	}
	slices.Reverse(list)
	return list, nil
}

// addAudited adds changes by operators to the time line.
func (w *inquiry) addAudited(m *member, list []auditedChange) {
	if len(list) == maxAudited {
		w.x.Omitted++ // at least
	}
	for _, a := range list {
		e := Entry{At: a.At, Service: m.service, Text: "operator " + a.Actor + " " + a.text() + errorText(a.Reason)}
		if i := slices.IndexFunc(a.named, isUUID); i >= 0 {
			e.EventID = uuid.MustParse(a.named[i])
		}
		if id := a.state(a.Before).EventID; a.isOfTimeout() && id != uuid.Nil { // instead of what the history of timeouts says of it
			w.x.Timeline = slices.DeleteFunc(w.x.Timeline, func(e Entry) bool { return e.steered == id })
		}
		w.x.Timeline = append(w.x.Timeline, e)
	}
}

func (a auditedChange) isOfTimeout() bool {
	return a.Action == ActionFireTimeout || a.Action == ActionMoveTimeout || a.Action == ActionDisarmTimeout
}

func isUUID(id string) bool { return uuid.Validate(id) == nil }

// text says what was done, in words that follow the actor's name.
func (a auditedChange) text() string {
	many := ""
	if a.Changed > 1 {
		many = fmt.Sprintf(", one of %d", a.Changed)
	}
	switch a.Action {
	case ActionRetryDeadLetters:
		return "retried the dead letter" + many
	case ActionDiscardDeadLetters:
		return "discarded the dead letter" + many
	case ActionEditDeadLetter:
		return "edited the dead letter, and retried it"
	case ActionAcceptGap:
		return "accepted the gap before the event"
	case ActionResetPosition:
		return "reset the position of the stream in " + a.state(a.Filter).Consumer
	case ActionRetryRejected:
		return "retried the rejected event" + many
	case ActionRedirectRejected:
		return "redirected the rejected event to another topic" + many
	case ActionDiscardRejected:
		return "discarded the rejected event" + many
	case ActionResend:
		return "sent the event again" + many
	case ActionRetryWaiting:
		return "retried the event that waits for a saga" + many
	case ActionDiscardWaiting:
		return "discarded the event that waits for a saga" + many
	case ActionApplyToSaga:
		return "applied " + a.state(a.Filter).Type + " to saga " + a.state(a.Filter).Saga
	case ActionPause, ActionResume:
		var t PauseTarget
		_ = json.Unmarshal(a.Filter, &t) // written by Pause and Resume
		return map[Action]string{ActionPause: "paused ", ActionResume: "resumed "}[a.Action] + t.String()
	case ActionFireTimeout, ActionMoveTimeout, ActionDisarmTimeout:
		return a.timeoutText()
	}
	return "did " + string(a.Action)
}

// auditedState is what the audit says of the things that were changed.
type auditedState struct {
	Consumer, Topic, Type, Saga, Key, Name string
	EventID                                uuid.UUID `json:"event_id"`
	DueAt                                  time.Time `json:"due_at"`
}

func (a auditedChange) state(from json.RawMessage) (s auditedState) {
	_ = json.Unmarshal(from, &s) // the zero state of null, and of what was too long to be recorded
	return s
}

func (a auditedChange) timeoutText() string {
	t := a.state(a.Filter)
	what := fmt.Sprintf("timeout %s of %s", t.Name, t.Key)
	due := a.state(a.Before).DueAt.UTC().Format(time.RFC3339)
	switch a.Action {
	case ActionFireTimeout:
		return fmt.Sprintf("fired %s, which was due at %s", what, due)
	case ActionMoveTimeout:
		return fmt.Sprintf("moved %s from %s to %s", what, due, a.state(a.After).DueAt.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("disarmed %s, which was due at %s", what, due)
}

// addAuditOf adds to the time line what operators did to an event and, until each consumer has handled it, to its stream and to the consumers
// that read it. The event may be known from the audit alone, or its id may be a key that the audit names.
func (w *inquiry) addAuditOf(ctx context.Context, s snapshot, m *member, e *explained, readers []reader) error {
	ids := []string{e.ID.String()}
	until := map[string]time.Time{} // when it was handled; zero: it isn't
	note := func(id string, handled time.Time) {
		if before, known := until[id]; id != "" && (!known || handled.IsZero() || !before.IsZero() && handled.After(before)) {
			until[id] = handled
		}
	}
	for _, c := range readers {
		handled := c.HandledAt
		if handled.IsZero() && c.State == StateHandled {
			handled = c.movedAt
		}
		note(c.Name, handled)
		note(PauseTarget{Kind: PauseHandler, Consumer: c.Name, Topic: e.Topic, Type: e.Type}.id(), handled)
		note(e.Subject, handled)
	}
	for id := range until {
		ids = append(ids, id)
	}
	list, err := s.audited(ctx, ids)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(a auditedChange) bool {
		if slices.Contains(a.named, e.ID.String()) {
			return false
		}
		return a.At.Before(e.RecordedAt) || !slices.ContainsFunc(a.named, func(id string) bool { return until[id].IsZero() || !a.At.After(until[id]) }) ||
			!a.holds(e, readers)
	})
	w.addAudited(m, list)
	return nil
}

// holds reports whether a change of a consumer or a stream is about one that an event goes through.
func (a auditedChange) holds(e *explained, readers []reader) bool {
	switch a.Action {
	case ActionPause, ActionResume:
	case ActionResetPosition:
		return a.state(a.Filter).Topic == e.Topic
	default:
		return false
	}
	var t PauseTarget
	_ = json.Unmarshal(a.Filter, &t)
	return slices.ContainsFunc(readers, func(c reader) bool { return t.holds(c.Name, e.Topic, e.Type, e.Subject) })
}

// idsOf returns the ids by which the audit names what has a key: the events of its streams, and the deadlines of its sagas.
func idsOf(status *SubjectStatus, sagas []Saga) (ids []string) {
	for _, e := range status.Events {
		ids = append(ids, e.ID.String())
	}
	for _, e := range status.Parked {
		ids = append(ids, e.EventID.String())
	}
	for _, v := range sagas {
		ids = append(ids, v.Name+"/"+v.Key)
	}
	return ids
}
