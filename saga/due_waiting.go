package saga

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/lazytx"
	"github.com/rocketflow/rocketflow/internal/listen"
	"github.com/rocketflow/rocketflow/internal/printable"
)

const (
	dueBatch     = 200              // waiting events that one statement takes
	recheckBatch = 256              // sagas that one statement checks
	applyTimeout = 30 * time.Second // the longest time that the engine's own transaction for one saga may take
)

// applyDueLoop applies the waiting events that no transition applies, such as one whose function failed, and ends the wait
// of those that waited for too long.
func (e *Engine) applyDueLoop(ctx context.Context) {
	e.loop(ctx, func(ctx context.Context) time.Duration {
		more := false
		for name, s := range e.registry() {
			again, err := e.applyDue(ctx, name, s)
			if err != nil && ctx.Err() == nil {
				e.cfg.Logger.Warn("waiting events of a saga could not be read; the next attempt follows", keySaga, name, keyRetryAfter, e.cfg.PollInterval, keyError, err)
			}
			more = more || again && err == nil
		}
		if more {
			return 0
		}
		return e.cfg.PollInterval
	})
}

// applyDue takes one batch of the waiting events of one definition's sagas that are due. It returns true if there may be
// more.
func (e *Engine) applyDue(ctx context.Context, name string, s registered) (more bool, err error) {
	var (
		key, status string
		begun       bool
		r           route
		version     *int
		state       *string
		finished    bool
		keys        []string
	)
	dest := []any{&key, &status, &begun, &r.topic, &r.eventType, &version, &state, &finished}
	taken, err := e.forEachRow(ctx, "DueWaiting", []any{name, int32(dueBatch)}, dest, func() error {
		if state == nil { // the saga has not begun
			return nil
		}
		reason, _ := s.unknown(*version, *state)
		if status == "retry" || !begun || finished || reason != "" || s.accepts(*version, *state, r) {
			keys = append(keys, key)
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) {
		if err := e.applyWaiting(ctx, s, key); err != nil {
			e.cfg.Logger.Warn("the waiting events of a saga could not be applied; they wait for the next attempt", keySaga, name, keyKey, key, keyError, err)
		}
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
	}
	expired, err := e.expireDue(ctx, name)
	return taken == dueBatch || expired == dueBatch, err
}

// applyWaiting applies the waiting events of one saga, in a transaction of its own, at read committed as a handler's is.
func (e *Engine) applyWaiting(ctx context.Context, s registered, key string) error {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	return lazytx.Retry(ctx, func() error {
		return guarded(func() error {
			return lazytx.Within(ctx, e.cfg.Transactor, func(ctx context.Context, tx rocketflow.Tx) error { return s.applyWaitingOf(ctx, tx, key) })
		})
	})
}

// expireDue ends the wait of one batch of events that waited for too long, and reports them. It returns their number.
func (e *Engine) expireDue(ctx context.Context, name string) (int, error) {
	type expiredEvent struct {
		WaitInfo
		arrivedAt time.Time
	}
	var expired []expiredEvent
	row := expiredEvent{WaitInfo: WaitInfo{Saga: name}}
	dest := []any{&row.ID, &row.Key, &row.Type, &row.EventID, &row.State, &row.arrivedAt, &row.ExpiresAt}
	if _, err := e.forEachRow(ctx, "ExpireDue", []any{name, int32(dueBatch)}, dest, func() error {
		expired = append(expired, row)
		return nil
	}); err != nil {
		return 0, fmt.Errorf("expire waiting events: %w", err)
	}
	counts := map[string]int{}
	for _, x := range expired {
		counts[x.Type]++
	}
	for _, x := range expired {
		listen.Notify(e.cfg.Listener.WaitExpired, x.WaitInfo)
		if n := counts[x.Type]; n > 0 {
			counts[x.Type] = 0 // one line for each type
			e.cfg.Logger.Error("events waited too long for a state of their saga that accepts them, and are not applied any more; "+
				"look at them with `rocketflow inspect saga`, then retry or discard them. The line names one of them",
				keySaga, name, keyKey, x.Key, keyState, x.State, keyType, x.Type, keyEvent, x.EventID, keyEvents, n, keyWaited, x.ExpiresAt.Sub(x.arrivedAt))
		}
	}
	return len(expired), nil
}

// recheck has the engine apply, at once, the waiting events of a saga that no transaction has seen together with the saga. It
// is called after the commit of the beginning and after that of an event that waits for the beginning, because neither
// transaction may have seen the other; and after that of a transaction that left events which the saga may accept. If the
// queue is full or the engine is stopped, applyDueLoop finds the events.
func (e *Engine) recheck(saga, key string) {
	select {
	case e.rechecks <- sagaKey{saga, key}:
	default:
	}
}

// recheckLoop checks the sagas in the queue of recheck until ctx ends.
func (e *Engine) recheckLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case k := <-e.rechecks:
			if err := e.recheckSagas(ctx, k); err != nil && ctx.Err() == nil {
				e.cfg.Logger.Warn("waiting events of sagas could not be applied; they wait for the next attempt",
					keyRetryAfter, e.cfg.PollInterval, keyError, err)
			}
		}
	}
}

// recheckSagas applies such events of the saga first, and of the other sagas in the queue.
func (e *Engine) recheckSagas(ctx context.Context, first sagaKey) error {
	sagas, keys := []string{first.saga}, []string{first.key}
	for more := true; more && len(keys) < recheckBatch; {
		select {
		case k := <-e.rechecks:
			sagas, keys = append(sagas, k.saga), append(keys, k.key)
		default:
			more = false
		}
	}
	var found []sagaKey
	var k sagaKey
	if _, err := e.forEachRow(ctx, "WithUnseenWaiting", []any{sagas, keys}, []any{&k.saga, &k.key}, func() error {
		found = append(found, k)
		return nil
	}); err != nil {
		return err
	}
	registered := e.registry()
	slices.SortFunc(found, func(a, b sagaKey) int { return strings.Compare(a.saga+"\x00"+a.key, b.saga+"\x00"+b.key) })
	var errs []error
	for _, k := range slices.Compact(found) {
		if s := registered[k.saga]; s != nil && ctx.Err() == nil {
			if err := e.applyWaiting(ctx, s, k.key); err != nil {
				errs = append(errs, printable.Errorf("saga %s of %s: %w", k.saga, k.key, err))
			}
		}
	}
	return errors.Join(errs...)
}
