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

// Saga is a definition that is registered with an engine: it begins, changes and reads the instances of the definition. All
// methods are safe for concurrent use.
type Saga[S any] struct {
	engine *Engine
	latest *Definition[S] // the definition of new instances
}

// Instance is one running or finished saga as it is stored.
type Instance[S any] struct {
	// Name is the name of the definition, Key the saga's key. Together they identify the saga.
	Name, Key string
	// Version is the version of the definition that the saga began on.
	Version int
	// State is the name of the state that the saga is in.
	State string
	// Data is what the functions of the transitions have stored.
	Data S
	// Revision is 1 at the beginning, and one more after each transition.
	Revision int64
	// StartedAt is when the saga began, ChangedAt when its last transition was made.
	StartedAt time.Time
	ChangedAt time.Time
	// FinishedAt is when the saga came to a final state. It is zero while the saga runs.
	FinishedAt time.Time

	waiting bool // saga_waiting may hold events for it
}

// Finished reports whether the saga is in a final state.
func (i Instance[S]) Finished() bool { return !i.FinishedAt.IsZero() }

// Querier is a pool, a connection or a transaction.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Register validates a definition and registers the handlers of its events with the engine's router. Call it before the
// engine and the router start. It returns a *DefinitionError if the definition is not valid, and a *rocketflow.FieldError if
// the definition has deadlines and the engine has no Timer or TimeoutTopic. The engine doesn't start after a definition was
// refused.
func Register[S any](e *Engine, d *Definition[S]) (*Saga[S], error) {
	s := &Saga[S]{engine: e, latest: d}
	if err := s.register(); err != nil {
		e.refuse(err)
		return nil, err
	}
	return s, nil
}

func (s *Saga[S]) register() error {
	e, d := s.engine, s.latest
	if err := d.validate(); err != nil {
		return err
	}
	if d.hasDeadlines() {
		if e.cfg.Timer == nil {
			return printable.Errorf("saga %s has deadlines: %w", d.name, valid.Field("saga.Config.Timer", "missing"))
		}
		if e.cfg.TimeoutTopic == "" {
			return printable.Errorf("saga %s has deadlines: %w", d.name, valid.Field("saga.Config.TimeoutTopic", "missing"))
		}
	}
	if err := e.add(d.name, s); err != nil {
		return err
	}
	for _, r := range d.routes() {
		e.cfg.Router.Handle(s.consumer(), r.topic, r.eventType, s.handler(r))
	}
	if d.hasDeadlines() {
		e.cfg.Router.Handle(s.consumer(), e.cfg.TimeoutTopic, deadlineType(d.name), e.cfg.Timer.Fence(s.handleDeadline))
	}
	return nil
}

// Consumer returns the name of the saga's consumer.
func (s *Saga[S]) Consumer() string { return s.consumer() }

func (s *Saga[S]) consumer() string { return s.engine.consumerOf(s.latest.name) }

func (s *Saga[S]) graph() Graph { return s.latest.Graph() }

// definition returns the definition that an instance runs on. It returns a *VersionError or an *UnknownStateError if this
// program doesn't have it.
func (s *Saga[S]) definition(i Instance[S]) (*Definition[S], error) {
	d := s.latest
	if i.Version != d.version {
		return nil, &VersionError{Saga: i.Name, Key: i.Key, Version: i.Version, Known: d.version}
	}
	if !d.hasState(i.State) {
		return nil, &UnknownStateError{Saga: i.Name, Key: i.Key, Version: i.Version, State: i.State}
	}
	return d, nil
}

// accepts implements registered.
func (s *Saga[S]) accepts(version int, state string, r route) bool {
	return version == s.latest.version && s.latest.transition(state, r) != nil
}

// unknown implements registered.
func (s *Saga[S]) unknown(version int, state string) (reason UnknownReason, known int) {
	switch {
	case version != s.latest.version:
		reason = UnknownVersion
	case !s.latest.hasState(state):
		reason = UnknownState
	}
	return reason, s.latest.version
}

// Begin begins a saga in tx: it stores the data and the initial state, arms the deadline of that state, and applies the
// events that wait for the saga. key is the subject of the saga's events: at most 255 bytes without control characters. Begin
// returns ErrExists if a saga with this key exists, running or finished and not yet deleted by retention; tx remains usable
// then.
//
// Any transaction may begin a saga, also that of another consumer's handler: events that come before it has committed wait.
// Use [StartOn] for sagas that an event begins.
func (s *Saga[S]) Begin(ctx context.Context, tx rocketflow.Tx, key string, data S) error {
	if !validKey(key) {
		return printable.Errorf("begin saga %s: %w", s.latest.name, valid.Fieldf("key", "%s: want 1 to %d bytes without control characters", printable.Quote(key, printable.Name), rocketflow.MaxSubject))
	}
	if err := s.begin(ctx, tx, key, data, cause{eventType: causeBegin}); err != nil {
		return printable.Errorf("begin saga %s of %s: %w", s.latest.name, key, err)
	}
	return nil
}

// validKey reports whether a saga can have this key.
func validKey(key string) bool {
	return key != "" && len(key) <= rocketflow.MaxSubject && printable.IsText(key)
}

// begin begins a saga for Begin and StartOn. It returns ErrExists if there is one.
func (s *Saga[S]) begin(ctx context.Context, tx rocketflow.Tx, key string, data S, c cause) error {
	d := s.latest
	encoded, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("encode data: %w", err)
	}
	initial := d.find(d.initial[0])
	i := Instance[S]{Name: d.name, Key: key, Version: d.version, State: initial.name, Data: data, Revision: 1}
	info := TransitionInfo{Saga: d.name, Key: key, To: initial.name, Final: initial.final, CauseType: c.eventType, CauseID: c.id, Revision: 1}
	err = s.engine.cfg.Around(ctx, info, func(ctx context.Context) error {
		err := tx.QueryRow(ctx, s.engine.sql.Get("Begin"), d.name, key, int32(d.version), initial.name, string(encoded), initial.final, //nolint:gosec // versions are small
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
		return s.arm(ctx, tx, i, initial)
	})
	if err != nil {
		return err
	}
	s.notifyMoved(tx, info)
	// This transaction doesn't see a waiting event whose transaction has not committed yet.
	tx.AfterCommit(func() { s.engine.recheck(d.name, key) })
	if !i.waiting {
		return nil
	}
	return s.applyAll(ctx, tx, d, i)
}

// Apply makes the transition of the event p in tx, and applies the waiting events that the new state accepts. p itself is not
// published. If there is no saga, or its state doesn't accept p, Apply returns ErrNotFound or a *NotExpectedError, where an
// event would wait or be ignored; tx remains usable then.
func (s *Saga[S]) Apply(ctx context.Context, tx rocketflow.Tx, key string, p rocketflow.Payload) error {
	e, err := wire.NewEvent(p)
	if err != nil {
		return printable.Errorf("saga %s of %s: %w", s.latest.name, key, err)
	}
	e.ID = uuid.Nil // it is no published event
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
			return s.transit(ctx, tx, d, i, t, e)
		}
	}
	return &NotExpectedError{Saga: i.Name, Key: key, State: i.State, Finished: i.Finished(), Type: e.Type}
}

// Get returns the saga with this key, as q sees it. It returns ErrNotFound if there is none.
func (s *Saga[S]) Get(ctx context.Context, q Querier, key string) (Instance[S], error) {
	i, err := s.read(ctx, q, "Get", key)
	if err != nil {
		return i, printable.Errorf("get saga %s of %s: %w", s.latest.name, key, err)
	}
	return i, nil
}

// read runs Get or Lock.
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
