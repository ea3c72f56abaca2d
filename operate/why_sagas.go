package operate

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// maxWaiting is how many of the events that wait for sagas, the newest, are searched for one by its id.
const maxWaiting = maxScan

// sagasOf adds the transitions that the event caused, and the sagas that it waits for, whatever their keys are: found is true if it waits for
// any. A transition is found if the event waits for the saga, or if its subject is the saga's key.
func (w *inquiry) sagasOf(ctx context.Context, s snapshot, m *member, e *explained) (found bool, err error) {
	var ids []int64
	var looked int
	if err := s.tx.QueryRow(ctx, s.sql.Get("WaitingOf"), e.ID.String(), e.Subject, maxWaiting).Scan(&ids, &looked); err != nil {
		return false, fmt.Errorf("waiting events: %w", err)
	}
	keys := []string{e.Subject}
	if len(ids) > 0 {
		waiting, err := s.waitingEvents(ctx, WaitingFilter{IDs: ids}, false)
		if err != nil {
			return false, fmt.Errorf("waiting events: %w", err)
		}
		for _, v := range waiting {
			w.waitingEvent(m, v)
			keys = append(keys, v.Key)
		}
	} else if looked == maxWaiting {
		w.verdicts = append(w.verdicts, Verdict{
			State: VerdictUnknown, For: "somebody to look whether a saga of " + m.service + " holds it",
			Because: fmt.Sprintf("more than %d events wait for sagas there, and only the newest were looked at", maxWaiting), Command: m.command("rocketflow", "inspect", "backlog"),
		})
	}
	type transition struct {
		saga, key, from, to string
		at                  time.Time
	}
	list, err := collect(ctx, s, "CausedTransitions", func(row pgx.CollectableRow, t *transition) error {
		return row.Scan(&t.saga, &t.key, &t.from, &t.to, &t.at)
	}, keys, e.ID.String())
	if err != nil {
		return false, fmt.Errorf("sagas: %w", err)
	}
	for _, t := range list {
		text := fmt.Sprintf("saga %s of %s: %s → %s", t.saga, t.key, t.from, t.to)
		if t.from == "" {
			text = fmt.Sprintf("saga %s of %s began in %s", t.saga, t.key, t.to)
		}
		w.x.Timeline = append(w.x.Timeline, Entry{At: t.at, Service: m.service, Text: text, EventID: e.ID})
	}
	return len(ids) > 0, nil
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
	retry := m.command("rocketflow", "saga", "retry", e.Key, "--event", e.Event.ID.String())
	switch e.Status {
	case WaitingForState:
		v.Because = fmt.Sprintf("in state %s it doesn't accept %s; the event expires in %s", state, e.Event.Type, sinceText(w.x.Now, e.ExpiresAt))
		if !e.Begun {
			v.Because = fmt.Sprintf("it has not begun; the event expires in %s", sinceText(w.x.Now, e.ExpiresAt))
		}
		v.Command = m.command("rocketflow", "inspect", "saga", e.Key)
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
