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

// causeBegin is the cause of a beginning in the history, unless an event caused it.
const causeBegin = "saga.begin"

// handler returns the handler of a route.
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
			if reason, state, err = s.step(ctx, tx, key, r, e); err != nil {
				return err
			}
		}
		if reason != "" {
			s.ignored(tx, IgnoredInfo{s.latest.name, key, state, e.Type, e.ID, reason})
		}
		return nil
	}
}

// step locks the saga and does what the event asks for: a transition, a beginning, or to wait. With a reason it is ignored.
func (s *Saga[S]) step(ctx context.Context, tx rocketflow.Tx, key string, r route, e rocketflow.Event) (Reason, string, error) {
	i, err := s.lock(ctx, tx, key)
	if errors.Is(err, ErrNotFound) {
		if start := s.latest.start(r); start != nil {
			begun, err := s.startOn(ctx, tx, key, start, e)
			if begun || err != nil {
				return "", "", err
			}
			i, err = s.lock(ctx, tx, key) // another transaction began it meanwhile
			if err != nil {
				return "", "", err
			}
		} else {
			limit, waits := s.unbegunLimit(r)
			if !waits {
				return NoSaga, "", nil
			}
			return "", "", s.keep(ctx, tx, i, e, limit, false)
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
		limit, waits := s.limit(d, r)
		switch {
		case waits && d.early(i.State, r):
			return "", "", s.keep(ctx, tx, i, e, limit, true)
		case d.start(r) != nil && !d.takes(r):
			return AlreadyBegun, i.State, nil
		}
		return NoTransition, i.State, nil
	}
	if i.waiting && e.Ordered() {
		behind, err := s.behind(ctx, tx, d, i, e)
		if err != nil {
			return "", "", err
		}
		if behind {
			return "", "", s.keep(ctx, tx, i, e, s.engine.cfg.WaitLimit, true)
		}
	}
	return "", "", s.take(ctx, tx, d, i, t, e)
}

// startOn begins a saga on an event. false: it has begun meanwhile, and what start did is undone.
func (s *Saga[S]) startOn(ctx context.Context, tx rocketflow.Tx, key string, start *start[S], e rocketflow.Event) (bool, error) {
	sp, inner, err := savepoint(ctx, tx)
	if err != nil {
		return false, printable.Errorf("begin saga %s of %s: %w", s.latest.name, key, err)
	}
	data, err := start.run(withEvent(ctx, e), inner, e)
	if err != nil {
		return false, err // the application's own; the transaction ends with it
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

// take makes a transition for an event, and then those of what has waited for it.
func (s *Saga[S]) take(ctx context.Context, tx rocketflow.Tx, d *Definition[S], i Instance[S], t *transition[S], e rocketflow.Event) error {
	run := func(data *S) error { return t.run(withEvent(ctx, e), tx, data, e) }
	i, err := s.change(ctx, tx, d, i, t.to, cause{eventType: e.Type, id: e.ID}, run)
	if err != nil || !i.waiting {
		return err
	}
	return s.wake(ctx, tx, d, i)
}

// lock reads the saga and holds its row until tx ends.
func (s *Saga[S]) lock(ctx context.Context, tx pgx.Tx, key string) (Instance[S], error) {
	i, err := s.read(ctx, tx, "Lock", key)
	if err != nil {
		return i, printable.Errorf("lock saga %s of %s: %w", s.latest.name, key, err)
	}
	return i, nil
}

type cause struct {
	eventType string
	id        uuid.UUID     // may be zero
	deadline  bool          // of the state that is left: the fence takes its timeout
	waited    time.Duration // since the event came
}

func (c cause) idText() *string {
	if c.id == uuid.Nil {
		return nil
	}
	text := c.id.String()
	return &text
}

// change runs a transition of a saga whose row is locked, and returns the saga as it is then.
func (s *Saga[S]) change(ctx context.Context, tx rocketflow.Tx, d *Definition[S], i Instance[S], to string, c cause, run func(*S) error) (Instance[S], error) {
	if err := run(&i.Data); err != nil {
		return i, err // the application's own: it says what it has to say
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
		return i, wrap(errors.New("its own function has changed or ended it"))
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
	s.moved(tx, TransitionInfo{
		Saga: i.Name, Key: i.Key, From: from.name, To: to, Final: target.final, Deadline: c.deadline,
		CauseType: c.eventType, CauseID: c.id, Revision: i.Revision, Age: i.ChangedAt.Sub(i.StartedAt), Waited: c.waited,
	})
	return i, nil
}

func (s *Saga[S]) moved(tx rocketflow.Tx, t TransitionInfo) {
	if moved := s.engine.cfg.Listener.Moved; moved != nil {
		tx.AfterCommit(func() { moved(t) })
	}
}

func (s *Saga[S]) ignored(tx rocketflow.Tx, i IgnoredInfo) {
	if ignored := s.engine.cfg.Listener.Ignored; ignored != nil {
		tx.AfterCommit(func() { ignored(i) })
	}
}

func routeOfEvent(e rocketflow.Event) route { return route{e.Topic, e.Type} }

type eventKey struct{}

func withEvent(ctx context.Context, e rocketflow.Event) context.Context {
	return context.WithValue(ctx, eventKey{}, e)
}

// EventFrom returns the event that causes the transition whose function runs, with its id, source and headers. It may have
// waited: the event that the router handles meanwhile is another one then. false: ctx is not that of a saga's function, or
// no event causes the transition.
func EventFrom(ctx context.Context) (rocketflow.Event, bool) {
	e, ok := ctx.Value(eventKey{}).(rocketflow.Event)
	return e, ok && e.ID != uuid.Nil
}
