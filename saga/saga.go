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
	"github.com/rocketflow/rocketflow/internal/valid"
	"github.com/rocketflow/rocketflow/internal/wire"
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

	waiting bool // events may wait for it
}

// Finished tells whether the saga is in a final state.
func (i Instance[S]) Finished() bool { return !i.FinishedAt.IsZero() }

// Querier is a pool, a connection or a transaction.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Register checks a definition (a *DefinitionError lists what is wrong) and has the engine run it. Register before the
// engine and the router start.
func Register[S any](e *Engine, d *Definition[S]) (*Saga[S], error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	if d.hasDeadlines() {
		if e.cfg.Timer == nil {
			return nil, printable.Errorf("saga %s has deadlines: %w", d.name, valid.Field("Timer", "missing"))
		}
		if e.cfg.TimeoutTopic == "" {
			return nil, printable.Errorf("saga %s has deadlines: %w", d.name, valid.Field("TimeoutTopic", "missing"))
		}
	}
	s := &Saga[S]{engine: e, latest: d}
	if err := e.claim(d.name, s); err != nil {
		return nil, err
	}
	for _, r := range d.routes() {
		e.cfg.Router.Handle(s.consumer(), r.topic, r.eventType, s.handler(r))
	}
	if d.hasDeadlines() {
		e.cfg.Router.Handle(s.consumer(), e.cfg.TimeoutTopic, deadlineType(d.name), e.cfg.Timer.Fence(s.handleDeadline))
	}
	return s, nil
}

// Consumer returns the name of the consumer that the saga's events come to.
func (s *Saga[S]) Consumer() string { return s.consumer() }

func (s *Saga[S]) consumer() string { return s.engine.consumerOf(s.latest.name) }

// definition returns the one that an instance runs on: a *VersionError or an *UnknownStateError if this program doesn't
// have it. Here older versions will find their place.
func (s *Saga[S]) definition(i Instance[S]) (*Definition[S], error) {
	d := s.latest
	if i.Version != d.version {
		return nil, &VersionError{Saga: i.Name, Key: i.Key, Version: i.Version, Known: d.version}
	}
	if !d.knows(i.State) {
		return nil, &UnknownStateError{Saga: i.Name, Key: i.Key, Version: i.Version, State: i.State}
	}
	return d, nil
}

func (s *Saga[S]) takes(version int, state string, r route) bool {
	return version == s.latest.version && s.latest.transition(state, r) != nil
}

func (s *Saga[S]) unknown(version int, state string) string {
	switch {
	case version != s.latest.version:
		return fmt.Sprintf("on version %d (this program has version %d)", version, s.latest.version)
	case !s.latest.knows(state):
		return fmt.Sprintf("in state %s of version %d, which this program's definition doesn't have", state, version)
	}
	return ""
}

// Begin begins a saga in tx, in its initial state, whose deadline it arms, and applies what has waited for it. ErrExists
// if there is one with this key, running or finished and not yet expired; tx remains usable then. key is what its events
// carry as their subject, at most 255 bytes without control characters.
//
// Any transaction may begin a saga, also that of another consumer's handler: events that come to the saga before that
// transaction has committed wait. [StartOn] is for sagas that an event begins.
func (s *Saga[S]) Begin(ctx context.Context, tx rocketflow.Tx, key string, data S) error {
	if !validKey(key) {
		return printable.Errorf("begin saga %s: %w", s.latest.name, valid.Fieldf("key", "%s: want 1 to %d bytes without control characters", printable.Quote(key, printable.Name), rocketflow.MaxSubject))
	}
	if err := s.begin(ctx, tx, key, data, cause{eventType: causeBegin}); err != nil {
		return printable.Errorf("begin saga %s of %s: %w", s.latest.name, key, err)
	}
	return nil
}

func validKey(key string) bool {
	return key != "" && len(key) <= rocketflow.MaxSubject && printable.IsText(key)
}

func (s *Saga[S]) begin(ctx context.Context, tx rocketflow.Tx, key string, data S, c cause) error {
	d := s.latest
	encoded, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("encode data: %w", err)
	}
	initial := d.find(d.initial[0])
	i := Instance[S]{Name: d.name, Key: key, Version: d.version, State: initial.name, Data: data, Revision: 1}
	err = tx.QueryRow(ctx, s.engine.sql.Get("Begin"), d.name, key, int32(d.version), initial.name, string(encoded), initial.final, //nolint:gosec // versions are small
		c.eventType, c.idText()).Scan(&i.StartedAt, &i.waiting)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrExists
	}
	if err != nil {
		return err
	}
	i.ChangedAt = i.StartedAt
	if initial.final {
		i.FinishedAt = i.StartedAt
	}
	if err := s.arm(ctx, tx, i, initial); err != nil {
		return err
	}
	s.moved(tx, TransitionInfo{
		Saga: d.name, Key: key, To: initial.name, Final: initial.final, CauseType: c.eventType, CauseID: c.id, Revision: 1,
	})
	// An event whose transaction has not committed yet can't be seen from here: look once more when both have.
	tx.AfterCommit(func() { s.engine.meet(d.name, key) })
	if !i.waiting {
		return nil
	}
	return s.wake(ctx, tx, d, i)
}

// Apply makes the transition that the event p would make, in tx, and applies what waits and fits then. Other than an event
// that doesn't fit, which waits or is ignored, it is an error: ErrNotFound, or a *NotExpectedError. tx remains usable then.
func (s *Saga[S]) Apply(ctx context.Context, tx rocketflow.Tx, key string, p rocketflow.Payload) error {
	e, err := wire.NewEvent(p)
	if err != nil {
		return printable.Errorf("saga %s of %s: %w", s.latest.name, key, err)
	}
	e.ID = uuid.Nil // it never was an event
	i, err := s.lock(ctx, tx, key)
	if errors.Is(err, ErrNotFound) {
		return printable.Errorf("saga %s of %s: %w", s.latest.name, key, ErrNotFound)
	}
	if err != nil {
		return err
	}
	if !i.Finished() {
		d, err := s.definition(i)
		if err != nil {
			return err
		}
		if t := d.transition(i.State, routeOfEvent(e)); t != nil {
			return s.take(ctx, tx, d, i, t, e)
		}
	}
	return &NotExpectedError{Saga: i.Name, Key: key, State: i.State, Finished: i.Finished(), Type: e.Type}
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
		Scan(&i.Version, &i.State, &data, &i.Revision, &i.StartedAt, &i.ChangedAt, &finished, &i.waiting)
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
