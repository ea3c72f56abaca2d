package operate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/inbox"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// ErrNoGap says that an event isn't the first parked event of its stream, or doesn't wait for its predecessor.
var ErrNoGap = errors.New("the event does not wait behind a gap as the first of its stream")

const (
	retryPage   = 1000 // dead letters that are made due by one statement
	discardPage = 200  // dead letters that are read at once to be discarded
)

// ParkedEvent is an event that waits in Postgres for its consumer, or a dead letter.
type ParkedEvent struct {
	Consumer  string
	Event     rocketflow.Event
	Reason    HandlingState // StateRetry, StateGap, StateBusy, StateUnhandled or StateDead
	Attempts  int           // failed so far
	NextAt    time.Time     // when it is due; zero: when another event or an operator makes it due
	LastError string        // why its handler failed, or why it is parked; empty: none
	ParkedAt  time.Time     // when it was parked
	Edited    bool          // an operator has changed its content: see EditDeadLetter and Originals
}

// ParkedFilter selects parked events or dead letters. An event is selected if it matches all fields that are set.
type ParkedFilter struct {
	Consumer string    `json:"consumer,omitempty"`
	EventID  uuid.UUID `json:"event_id,omitzero"`
	Source   string    `json:"source,omitempty"`
	Topic    string    `json:"topic,omitempty"`
	Type     string    `json:"type,omitempty"`
	Subject  string    `json:"subject,omitempty"`
	Error    string    `json:"error,omitempty"` // a kind of errors: DeadLetterGroup.Error
	// All selects the events of all consumers. A change requires either All or one of the fields above.
	All bool `json:"all,omitempty"`
	// Limit is the maximum number of events; those that were parked first are selected first.
	// Defaults to DefaultLimit for a list and to no limit for a change.
	Limit int `json:"limit,omitempty"`
}

func (f ParkedFilter) checkChange() error {
	selects := f.EventID != uuid.Nil || f.Consumer+f.Source+f.Topic+f.Type+f.Subject+f.Error != ""
	return checkChange("ParkedFilter", selects, f.All, f.Limit)
}

// rows returns the filter of the tables' package. limit 0 is no limit.
func (f ParkedFilter) rows(limit int) inbox.Filter {
	return inbox.Filter{
		Consumer: f.Consumer, EventID: f.EventID, Source: f.Source, Topic: f.Topic, Type: f.Type, Subject: f.Subject, Error: f.Error, Limit: limit,
	}
}

// DeadLetters returns the dead letters, in the order in which they were parked.
func (o *Operator) DeadLetters(ctx context.Context, f ParkedFilter) ([]ParkedEvent, error) {
	return o.parked(ctx, true, f)
}

// ParkedEvents returns the events that wait for their next attempt, a predecessor, a busy stream or a handler, in the order
// in which they were parked. It doesn't return dead letters.
func (o *Operator) ParkedEvents(ctx context.Context, f ParkedFilter) ([]ParkedEvent, error) {
	return o.parked(ctx, false, f)
}

func (o *Operator) parked(ctx context.Context, dead bool, f ParkedFilter) ([]ParkedEvent, error) {
	if err := checkLimit("ParkedFilter", f.Limit); err != nil {
		return nil, err
	}
	records, err := o.inbox.List(ctx, o.db(), dead, f.rows(int(listLimit(f.Limit))))
	if err != nil {
		return nil, err
	}
	list := make([]ParkedEvent, len(records))
	for i, r := range records {
		list[i] = ParkedEvent{r.Consumer, r.Event, HandlingState(r.Reason), r.Attempts, r.NextAt, r.LastError, r.ParkedAt, r.Edited}
	}
	return list, nil
}

// RetryDeadLetters makes dead letters due, with their attempts counted from 0 again, and returns how many; with an error, how
// many before that. It waits for a handler whose transaction has locked one of them.
func (o *Operator) RetryDeadLetters(ctx context.Context, f ParkedFilter) (n int, err error) {
	if err := f.checkChange(); err != nil {
		return 0, err
	}
	op, err := o.operation(ctx, ActionRetryDeadLetters, f)
	if err != nil {
		return 0, err
	}
	letters, err := o.inbox.Keys(ctx, o.db(), true, f.rows(f.Limit))
	if err != nil {
		return 0, err
	}
	for page := range slices.Chunk(letters, retryPage) {
		done, err := op.retry(ctx, page)
		if n += done; err != nil {
			return n, fmt.Errorf("retry dead letters: %w", err)
		}
	}
	return n, nil
}

// retry makes dead letters due, and returns how many; with an error, how many before that. Those that a handler's transaction has
// locked come last, one by one, and are waited for.
func (op *operation) retry(ctx context.Context, letters []inbox.ParkedKey) (n int, err error) {
	var locked []inbox.ParkedKey
	err = op.inTx(ctx, func(tx pgx.Tx) (c changed, err error) {
		var retried []inbox.RetriedLetter
		retried, locked, err = op.inbox.RetryFree(ctx, tx, letters)
		c = retriedLetters(retried)
		n = c.n
		return c, err
	})
	if err != nil {
		return 0, err
	}
	for _, k := range locked {
		done := 0
		err := op.inTx(ctx, func(tx pgx.Tx) (changed, error) {
			retried, err := op.inbox.RetryLocked(ctx, tx, k)
			c := retriedLetters(retried)
			done = c.n
			return c, err
		})
		if err != nil {
			return n, err
		}
		n += done
	}
	return n, nil
}

// retriedLetters is the audit of dead letters that were made due.
func retriedLetters(list []inbox.RetriedLetter) (c changed) {
	var before []parkedState
	for _, l := range list {
		c.add(l.EventID)
		if len(before) < maxStates {
			before = append(before, parkedState{
				Consumer: l.Consumer, EventID: l.EventID, Type: l.Type, Subject: l.Subject, Reason: StateDead, Attempts: l.Attempts,
				LastError: printable.Cut(l.LastError, maxAuditError),
			})
		}
	}
	c.before, c.after = before, map[string]any{"reason": StateRetry, "attempts": 0}
	return c
}

// DiscardDeadLetters records dead letters as handled although they had no effect, deletes them, and returns how many; with an
// error, how many before that. The events that wait behind them are handled then. Of a stream, only a dead letter that is
// the first parked event is discarded.
func (o *Operator) DiscardDeadLetters(ctx context.Context, f ParkedFilter) (n int, err error) {
	if err := f.checkChange(); err != nil {
		return 0, err
	}
	op, err := o.operation(ctx, ActionDiscardDeadLetters, f)
	if err != nil {
		return 0, err
	}
	letters, err := o.inbox.Keys(ctx, o.db(), true, f.rows(f.Limit))
	if err != nil {
		return 0, err
	}
	for page := range slices.Chunk(letters, discardPage) {
		list, err := o.inbox.Records(ctx, o.db(), page, false)
		if err != nil {
			return n, err
		}
		for _, l := range list {
			discarded, err := op.discard(ctx, l)
			if err != nil {
				return n, fmt.Errorf("discard dead letter %s: %w", l.Event.ID, err)
			}
			if discarded {
				n++
			}
		}
	}
	return n, nil
}

// discard gives up a dead letter, and reports whether it still was one and could be.
func (op *operation) discard(ctx context.Context, l *inbox.Record) (done bool, err error) {
	err = op.inTx(ctx, func(tx pgx.Tx) (c changed, err error) {
		if done, err = op.inbox.Consumer(l.Consumer).DiscardDead(ctx, tx, l.Event); err == nil && done {
			c.add(l.Event.ID.String())
			c.before = stateOf(l)
		}
		return c, err
	})
	return done, err
}

// AcceptGap makes an event due although its predecessor is missing. Use it if the predecessor is lost and Resend can't send it
// again. If the predecessor comes after all, it becomes a dead letter that no event waits for. The error matches ErrNoGap if
// the event isn't the first parked event of its stream, or waits for something else.
func (o *Operator) AcceptGap(ctx context.Context, consumer string, event uuid.UUID) error {
	op, err := o.operation(ctx, ActionAcceptGap, ParkedFilter{Consumer: consumer, EventID: event})
	if err != nil {
		return err
	}
	err = op.inTx(ctx, func(tx pgx.Tx) (c changed, err error) {
		accepted, err := o.inbox.Consumer(consumer).AcceptGap(ctx, tx, event)
		if err == nil && !accepted {
			err = ErrNoGap
		}
		c.add(event.String())
		c.before, c.after = map[string]any{"reason": StateGap}, map[string]any{"reason": StateRetry}
		return c, err
	})
	if err != nil {
		return fmt.Errorf("accept the gap before event %s: %w", event, err)
	}
	return nil
}

// stateOf is the state of a parked event in the audit.
func stateOf(r *inbox.Record) parkedState {
	return parkedState{
		Consumer: r.Consumer, EventID: r.Event.ID.String(), Type: r.Event.Type, Subject: r.Event.Subject, Reason: HandlingState(r.Reason),
		Attempts: r.Attempts, LastError: printable.Cut(r.LastError, maxAuditError),
	}
}
