package saga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// causeBegin is the cause in the history of a saga that Begin began.
const causeBegin = "saga.begin"

// handler returns the handler of events that come in by r.
func (s *Saga[S]) handler(r route) rocketflow.HandlerFunc {
	keyBy := s.latest.keys[r]
	return func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		key := e.Subject
		if keyBy != nil {
			var err error
			if key, err = keyBy(e); err != nil {
				return err
			}
		}
		reason, state := NoKey, ""
		if validKey(key) {
			var err error
			if reason, state, err = s.handleEvent(ctx, tx, key, r, e); err != nil {
				return err
			}
		}
		if reason != "" {
			s.notifyIgnored(tx, IgnoredInfo{s.latest.name, key, state, e.Type, e.ID, reason})
		}
		return nil
	}
}

// handleEvent locks the saga and makes the event's transition, begins the saga, or lets the event wait. If it does none of
// these it returns why, and the saga's state.
func (s *Saga[S]) handleEvent(ctx context.Context, tx rocketflow.Tx, key string, r route, e rocketflow.Event) (IgnoredReason, string, error) {
	i, err := s.lock(ctx, tx, key)
	if errors.Is(err, ErrNotFound) {
		if start := s.latest.start(r); start != nil {
			begun, err := s.startOn(ctx, tx, key, start, e)
			if begun || err != nil {
				return "", "", err
			}
			i, err = s.lock(ctx, tx, key)
			if err != nil {
				return "", "", err
			}
		} else {
			limit, waits := s.unbegunLimit(r)
			if !waits {
				return NoSaga, "", nil
			}
			return "", "", s.storeWaiting(ctx, tx, i, e, limit, false)
		}
	} else if err != nil {
		return "", "", err
	}
	if i.Finished() {
		return Finished, i.State, nil
	}
	d, err := s.definition(i)
	if err != nil {
		return "", "", err
	}
	t := d.transition(i.State, r)
	if t == nil {
		limit, waits := s.waitLimit(d, r)
		switch {
		case waits && d.acceptsLater(i.State, r):
			return "", "", s.storeWaiting(ctx, tx, i, e, limit, true)
		case d.start(r) != nil && !d.accepts(r):
			return AlreadyBegun, i.State, nil
		}
		return NoTransition, i.State, nil
	}
	if i.waiting && e.Ordered() {
		overtakes, err := s.hasEarlierWaiting(ctx, tx, d, i, e)
		if err != nil {
			return "", "", err
		}
		if overtakes {
			return "", "", s.storeWaiting(ctx, tx, i, e, s.engine.cfg.WaitLimit, true)
		}
	}
	return "", "", s.transit(ctx, tx, d, i, t, e)
}

// startOn begins a saga for an event of StartOn. It returns false if another transaction has begun the saga at the same
// time: the effects of start are taken back then.
func (s *Saga[S]) startOn(ctx context.Context, tx rocketflow.Tx, key string, start *start[S], e rocketflow.Event) (bool, error) {
	sp, inner, err := savepoint(ctx, tx)
	if err != nil {
		return false, printable.Errorf("begin saga %s of %s: %w", s.latest.name, key, err)
	}
	data, err := start.run(withEvent(ctx, e), inner, e)
	if err != nil {
		return false, err // the application's own error, unwrapped; it ends the transaction
	}
	err = s.begin(ctx, inner, key, data, cause{eventType: e.Type, id: e.ID})
	if errors.Is(err, ErrExists) {
		if err := sp.Rollback(ctx); err != nil {
			return false, printable.Errorf("begin saga %s of %s: %w", s.latest.name, key, err)
		}
		return false, nil
	}
	if err == nil {
		err = sp.Commit(ctx)
	}
	if err != nil {
		return false, printable.Errorf("begin saga %s of %s: %w", s.latest.name, key, err)
	}
	return true, nil
}

// transit makes the transition t for an event, and then those of the waiting events that the new state accepts.
func (s *Saga[S]) transit(ctx context.Context, tx rocketflow.Tx, d *Definition[S], i Instance[S], t *transition[S], e rocketflow.Event) error {
	run := func(ctx context.Context, data *S) error { return t.run(withEvent(ctx, e), tx, data, e) }
	i, err := s.change(ctx, tx, d, i, t.to, cause{eventType: e.Type, id: e.ID}, run)
	if err != nil || !i.waiting {
		return err
	}
	return s.applyAll(ctx, tx, d, i)
}

// lock reads the saga and locks its row until tx ends. It returns ErrNotFound if there is no saga.
func (s *Saga[S]) lock(ctx context.Context, tx pgx.Tx, key string) (Instance[S], error) {
	i, err := s.read(ctx, tx, "Lock", key)
	if err != nil {
		return i, printable.Errorf("lock saga %s of %s: %w", s.latest.name, key, err)
	}
	return i, nil
}

// cause is what causes a transition or a beginning.
type cause struct {
	eventType string
	id        uuid.UUID     // of the event; zero for Begin and Apply
	deadline  bool          // the deadline of the state that is left, whose timeout the fence deletes
	waited    time.Duration // how long the event waited
}

// idText returns the id as a parameter of a statement; nil if it is zero.
func (c cause) idText() *string {
	if c.id == uuid.Nil {
		return nil
	}
	text := c.id.String()
	return &text
}

// change runs the function of a transition, stores the new state, data and history, and exchanges the deadlines. The saga's
// row is locked. It returns the saga after the transition.
func (s *Saga[S]) change(ctx context.Context, tx rocketflow.Tx, d *Definition[S], i Instance[S], to string, c cause, run func(context.Context, *S) error) (Instance[S], error) {
	info := TransitionInfo{
		Saga: i.Name, Key: i.Key, From: d.find(i.State).name, To: to, Final: d.find(to).final, Deadline: c.deadline,
		CauseType: c.eventType, CauseID: c.id, Revision: i.Revision + 1, Waited: c.waited,
	}
	err := s.engine.cfg.Around(ctx, info, func(ctx context.Context) (err error) {
		i, err = s.runChange(ctx, tx, d, i, info, c, run)
		return err
	})
	return i, err
}

func (s *Saga[S]) runChange(ctx context.Context, tx rocketflow.Tx, d *Definition[S], i Instance[S], info TransitionInfo, c cause, run func(context.Context, *S) error) (Instance[S], error) {
	to := info.To
	if err := run(ctx, &i.Data); err != nil {
		return i, err // the application's own error, unwrapped
	}
	from, target := d.find(i.State), d.find(to)
	wrap := func(err error) error {
		return printable.Errorf("saga %s of %s, %s to %s: %w", i.Name, i.Key, from.name, to, err)
	}
	data, err := json.Marshal(i.Data)
	if err != nil {
		return i, wrap(fmt.Errorf("encode data: %w", err))
	}
	err = tx.QueryRow(ctx, s.engine.sql.Get("Change"), i.Name, i.Key, i.Revision, to, string(data), target.final, from.name, c.eventType, c.idText()).
		Scan(&i.ChangedAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return i, wrap(errors.New("the transition's function changed or ended the same saga"))
	}
	if err != nil {
		return i, wrap(err)
	}
	i.State, i.Revision = to, i.Revision+1
	if target.final {
		i.FinishedAt = i.ChangedAt
	}

	stays := from == target
	if !stays && !c.deadline && from.deadline() != nil {
		if _, err := s.engine.cfg.Timer.Disarm(ctx, tx, timeoutKey(i.Name, i.Key), from.name); err != nil {
			return i, wrap(err)
		}
	}
	if !stays || c.deadline {
		if err := s.arm(ctx, tx, i, target); err != nil {
			return i, wrap(err)
		}
	}
	info.Age = i.ChangedAt.Sub(i.StartedAt)
	s.notifyMoved(tx, info)
	return i, nil
}

func (s *Saga[S]) notifyMoved(tx rocketflow.Tx, t TransitionInfo) {
	if moved := s.engine.cfg.Listener.Moved; moved != nil {
		tx.AfterCommit(func() { moved(t) })
	}
}

func (s *Saga[S]) notifyIgnored(tx rocketflow.Tx, i IgnoredInfo) {
	if ignored := s.engine.cfg.Listener.Ignored; ignored != nil {
		tx.AfterCommit(func() { ignored(i) })
	}
}

func routeOfEvent(e rocketflow.Event) route { return route{e.Topic, e.Type} }

type eventKey struct{}

func withEvent(ctx context.Context, e rocketflow.Event) context.Context {
	return context.WithValue(ctx, eventKey{}, e)
}

// EventFrom returns the event that causes the transition whose function runs with ctx: its id, source, headers and so on. If
// the event had waited, it is another event than the one that the router is handling. EventFrom returns false if ctx is not
// that of a saga's function, or if no event causes the transition.
func EventFrom(ctx context.Context) (rocketflow.Event, bool) {
	e, ok := ctx.Value(eventKey{}).(rocketflow.Event)
	return e, ok && e.ID != uuid.Nil
}
