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

// Saga is a registered definition. All methods are safe for concurrent use.
type Saga[S any] struct {
	engine *Engine
	latest *Definition[S] // on which new ones begin
}

// Instance is one saga as it is stored.
type Instance[S any] struct {
	Name, Key  string
	Version    int // of the definition that it began on
	State      string
	Data       S
	Revision   int64 // 1 at the beginning, one more with each transition
	StartedAt  time.Time
	ChangedAt  time.Time
	FinishedAt time.Time // zero while it runs
}

// Finished tells whether the saga is in a final state.
func (i Instance[S]) Finished() bool { return !i.FinishedAt.IsZero() }

// Querier is a pool, a connection or a transaction.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Register checks a definition (a *DefinitionError lists what is wrong) and has the engine run it. Register before the
// router starts.
func Register[S any](e *Engine, d *Definition[S]) (*Saga[S], error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	if d.hasDeadlines() {
		if e.cfg.Timer == nil {
			return nil, printable.Errorf("saga %s has deadlines: %w", d.name, &rocketflow.FieldError{Field: "Timer", Reason: "missing"})
		}
		if e.cfg.TimeoutTopic == "" {
			return nil, printable.Errorf("saga %s has deadlines: %w", d.name, &rocketflow.FieldError{Field: "TimeoutTopic", Reason: "missing"})
		}
	}
	if err := e.claim(d.name); err != nil {
		return nil, err
	}
	s := &Saga[S]{engine: e, latest: d}
	for _, r := range d.routes() {
		e.listen(r, d.name, s.handler(r))
	}
	if d.hasDeadlines() {
		e.listen(route{e.cfg.TimeoutTopic, deadlineType(d.name)}, d.name, e.cfg.Timer.Fence(s.handleDeadline))
	}
	return s, nil
}

// definition returns the one that an instance runs on. Here older versions will find their place.
func (s *Saga[S]) definition(i Instance[S]) (*Definition[S], error) {
	if i.Version != s.latest.version {
		return nil, &VersionError{Saga: i.Name, Key: i.Key, Version: i.Version, Known: s.latest.version}
	}
	return s.latest, nil
}

// Begin begins a saga in tx, in its initial state, whose deadline it arms. ErrExists if there is one with this key,
// running or finished and not yet expired; tx remains usable then. key is what its events carry as their subject, at most
// 255 bytes without control characters.
func (s *Saga[S]) Begin(ctx context.Context, tx rocketflow.Tx, key string, data S) error {
	d := s.latest
	if key == "" || len(key) > rocketflow.MaxSubject || !printable.IsText(key) {
		return printable.Errorf("begin saga %s: %w", d.name, &rocketflow.FieldError{
			Field: "key", Reason: fmt.Sprintf("%s: want 1 to %d bytes without control characters", printable.Quote(key, printable.Name), rocketflow.MaxSubject)})
	}
	encoded, err := json.Marshal(data)
	if err != nil {
		return printable.Errorf("begin saga %s of %s: encode data: %w", d.name, key, err)
	}
	initial := d.find(d.initial[0])
	tag, err := tx.Exec(ctx, s.engine.sql.Get("Begin"), d.name, key, d.version, initial.name, encoded, initial.final, causeBegin)
	if err != nil {
		return printable.Errorf("begin saga %s of %s: %w", d.name, key, err)
	}
	if tag.RowsAffected() == 0 {
		return printable.Errorf("begin saga %s of %s: %w", d.name, key, ErrExists)
	}
	if err := s.arm(ctx, tx, Instance[S]{Name: d.name, Key: key, State: initial.name, Data: data, Revision: 1}, initial); err != nil {
		return printable.Errorf("begin saga %s of %s: %w", d.name, key, err)
	}
	s.moved(tx, TransitionInfo{Saga: d.name, Key: key, To: initial.name, Final: initial.final, CauseType: causeBegin, Revision: 1})
	return nil
}

// Apply makes the transition that the event p would make, in tx. Other than an event that doesn't fit, which is ignored,
// it is an error: ErrNotFound, or a *NotExpectedError. tx remains usable then.
func (s *Saga[S]) Apply(ctx context.Context, tx rocketflow.Tx, key string, p rocketflow.Payload) error {
	e, err := rocketflow.NewEvent(p)
	if err != nil {
		return printable.Errorf("saga %s of %s: %w", s.latest.name, key, err)
	}
	e.ID = uuid.Nil // it never was an event
	reason, i, err := s.step(ctx, tx, key, e)
	switch {
	case err != nil:
		return err
	case reason == NoSaga:
		return printable.Errorf("saga %s of %s: %w", s.latest.name, key, ErrNotFound)
	case reason != "":
		return &NotExpectedError{Saga: i.Name, Key: key, State: i.State, Finished: reason == Finished, Type: e.Type}
	}
	return nil
}

// Get reads a saga, as far as q sees it. ErrNotFound if there is none.
func (s *Saga[S]) Get(ctx context.Context, q Querier, key string) (Instance[S], error) {
	i, err := s.read(ctx, q, "Get", key)
	if err != nil {
		return i, printable.Errorf("get saga %s of %s: %w", s.latest.name, key, err)
	}
	return i, nil
}

func (s *Saga[S]) read(ctx context.Context, q Querier, query, key string) (Instance[S], error) {
	i := Instance[S]{Name: s.latest.name, Key: key}
	var data []byte
	var finished *time.Time
	err := q.QueryRow(ctx, s.engine.sql.Get(query), i.Name, key).
		Scan(&i.Version, &i.State, &data, &i.Revision, &i.StartedAt, &i.ChangedAt, &finished)
	if errors.Is(err, pgx.ErrNoRows) {
		return i, ErrNotFound
	}
	if err != nil {
		return i, err
	}
	if finished != nil {
		i.FinishedAt = *finished
	}
	if err := json.Unmarshal(data, &i.Data); err != nil {
		return i, fmt.Errorf("decode data: %w", err)
	}
	return i, nil
}
