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
)

// ErrNoGap says that an event isn't the first parked event of its stream, or doesn't wait for its predecessor.
var ErrNoGap = errors.New("the event does not wait behind a gap as the first of its stream")

// retryPage is how many dead letters are made due by one statement.
const retryPage = 1000

// ParkedEvent is an event that waits in Postgres for its consumer, or a dead letter.
type ParkedEvent struct {
	Consumer  string
	Event     rocketflow.Event
	Reason    HandlingState // StateRetry, StateGap, StateBusy, StateUnhandled or StateDead
	Attempts  int           // failed so far
	NextAt    time.Time     // when it is due; zero: when another event or an operator makes it due
	LastError string
	ParkedAt  time.Time
}

// ParkedFilter selects parked events or dead letters. An event is selected if it matches all fields that are set.
type ParkedFilter struct {
	Consumer string
	EventID  uuid.UUID
	Source   string
	Topic    string
	Type     string
	Subject  string
	Error    string // a kind of errors: DeadLetterGroup.Error
	// All selects the events of all consumers. A change requires either All or one of the fields above.
	All bool
	// Limit is the maximum number of events; those that were parked first are selected first. Defaults to DefaultLimit for
	// a list and to no limit for a change.
	Limit int
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
		list[i] = ParkedEvent{r.Consumer, r.Event, HandlingState(r.Reason), r.Attempts, r.NextAt, r.LastError, r.ParkedAt}
	}
	return list, nil
}

// RetryDeadLetters makes dead letters due, with their attempts counted from 0 again, and returns how many; with an error, how
// many before that. It waits for a handler whose transaction has locked one of them.
func (o *Operator) RetryDeadLetters(ctx context.Context, f ParkedFilter) (n int, err error) {
	if err := f.checkChange(); err != nil {
		return 0, err
	}
	letters, err := o.inbox.DeadKeys(ctx, o.db(), f.rows(f.Limit))
	if err != nil {
		return 0, err
	}
	for page := range slices.Chunk(letters, retryPage) {
		done, err := o.inbox.RetryDead(ctx, o.db(), page)
		if n += done; err != nil {
			return n, fmt.Errorf("retry dead letters: %w", err)
		}
	}
	return n, nil
}

// DiscardDeadLetters records dead letters as handled although they had no effect, deletes them, and returns how many; with an
// error, how many before that. The events that wait behind them are handled then. Of a stream, only a dead letter that is
// the first parked event is discarded.
func (o *Operator) DiscardDeadLetters(ctx context.Context, f ParkedFilter) (n int, err error) {
	if err := f.checkChange(); err != nil {
		return 0, err
	}
	letters, err := o.inbox.List(ctx, o.db(), true, f.rows(f.Limit))
	if err != nil {
		return 0, err
	}
	for _, l := range letters {
		discarded := false
		err := o.inTx(ctx, func(tx pgx.Tx) (err error) {
			discarded, err = o.inbox.Consumer(l.Consumer).DiscardDead(ctx, tx, l.Event)
			return err
		})
		if err != nil {
			return n, fmt.Errorf("discard dead letter %s: %w", l.Event.ID, err)
		}
		if discarded {
			n++
		}
	}
	return n, nil
}

// AcceptGap makes an event due although its predecessor is missing. Use it if the predecessor is lost and Resend can't send it
// again. If the predecessor comes after all, it becomes a dead letter that no event waits for. The error matches ErrNoGap if
// the event isn't the first parked event of its stream, or waits for something else.
func (o *Operator) AcceptGap(ctx context.Context, consumer string, event uuid.UUID) error {
	accepted, err := o.inbox.Consumer(consumer).AcceptGap(ctx, o.db(), event)
	if err == nil && !accepted {
		err = ErrNoGap
	}
	if err != nil {
		return fmt.Errorf("accept the gap before event %s: %w", event, err)
	}
	return nil
}
