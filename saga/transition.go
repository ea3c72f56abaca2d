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

// causeBegin is the cause of a beginning in the history.
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
		if key != "" {
			r, i, err := s.step(ctx, tx, key, e)
			if err != nil {
				return err
			}
			reason, state = r, i.State
		}
		if reason != "" && s.engine.cfg.Listener.Ignored != nil {
			s.engine.cfg.Listener.Ignored(IgnoredInfo{s.latest.name, key, state, e.Type, e.ID, reason})
		}
		return nil
	}
}

// step locks the saga and makes the transition for e. The reason is empty if it was made.
func (s *Saga[S]) step(ctx context.Context, tx rocketflow.Tx, key string, e rocketflow.Event) (Reason, Instance[S], error) {
	i, err := s.lock(ctx, tx, key)
	switch {
	case errors.Is(err, ErrNotFound):
		return NoSaga, i, nil
	case err != nil:
		return "", i, err
	case i.Finished():
		return Finished, i, nil
	}
	d, err := s.definition(i)
	if err != nil {
		return "", i, err
	}
	t := d.transition(i.State, e.Type)
	if t == nil {
		return NoTransition, i, nil
	}
	run := func(data *S) error { return t.run(ctx, tx, data, e) }
	return "", i, s.change(ctx, tx, d, i, t.to, cause{eventType: e.Type, id: e.ID}, run)
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
	id        uuid.UUID // may be zero
	deadline  bool      // of the state that is left: the fence takes its timeout
}

// change runs a transition of a saga whose row is locked.
func (s *Saga[S]) change(ctx context.Context, tx rocketflow.Tx, d *Definition[S], i Instance[S], to string, c cause, run func(*S) error) error {
	if err := run(&i.Data); err != nil {
		return err // the application's own: it says what it has to say
	}
	from, target := d.find(i.State), d.find(to)
	wrap := func(err error) error {
		return printable.Errorf("saga %s of %s, %s to %s: %w", i.Name, i.Key, from.name, to, err)
	}
	data, err := json.Marshal(i.Data)
	if err != nil {
		return wrap(fmt.Errorf("encode data: %w", err))
	}
	var causeID *uuid.UUID
	if c.id != uuid.Nil {
		causeID = &c.id
	}
	var changed time.Time
	err = tx.QueryRow(ctx, s.engine.sql.Get("Change"), i.Name, i.Key, i.Revision, to, data, target.final, from.name, c.eventType, causeID).Scan(&changed)
	if errors.Is(err, pgx.ErrNoRows) {
		return wrap(errors.New("its own function has changed or ended it"))
	}
	if err != nil {
		return wrap(err)
	}
	i.State, i.Revision = to, i.Revision+1

	stays := from == target
	if !stays && !c.deadline && from.deadline() != nil {
		if _, err := s.engine.cfg.Timer.Disarm(ctx, tx, timeoutKey(i.Name, i.Key), from.name); err != nil {
			return wrap(err)
		}
	}
	if !stays || c.deadline {
		if err := s.arm(ctx, tx, i, target); err != nil {
			return wrap(err)
		}
	}
	s.moved(tx, TransitionInfo{
		Saga: i.Name, Key: i.Key, From: from.name, To: to, Final: target.final, Deadline: c.deadline,
		CauseType: c.eventType, CauseID: c.id, Revision: i.Revision, Age: changed.Sub(i.StartedAt),
	})
	return nil
}

func (s *Saga[S]) moved(tx rocketflow.Tx, t TransitionInfo) {
	if moved := s.engine.cfg.Listener.Moved; moved != nil {
		tx.AfterCommit(func() { moved(t) })
	}
}
