package saga

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/stored"
)

// maxWoken is how many waiting events one transaction applies at most. The engine applies the others.
const maxWoken = 32

// keep has an event wait, in the transaction that settles it for the router. The saga's row is locked, or there is none.
func (s *Saga[S]) keep(ctx context.Context, tx rocketflow.Tx, i Instance[S], e rocketflow.Event, limit time.Duration, begun bool) error {
	wrap := func(err error) error {
		return printable.Errorf("saga %s of %s: keep event %s: %w", i.Name, i.Key, e.ID, err)
	}
	headers, err := stored.Headers(e)
	if err != nil {
		return wrap(err)
	}
	w := WaitInfo{Saga: i.Name, Key: i.Key, State: i.State, Type: e.Type, EventID: e.ID}
	err = tx.QueryRow(ctx, s.engine.sql.Get("Keep"), i.Name, i.Key, begun, i.State, e.ID.String(), e.Source, e.Topic, e.Type,
		e.Subject, e.Sequence, e.Previous, e.Time, e.Database, e.ContentType, headers, limit.Seconds(), stored.Body(e)).Scan(&w.ID, &w.ExpiresAt)
	if err != nil {
		return wrap(err)
	}
	tx.AfterCommit(func() {
		tell(s.engine.cfg.Listener.Waiting, w)
		if !begun {
			s.engine.meet(i.Name, i.Key) // it may have begun in a transaction that could not be seen from here
		}
	})
	return nil
}

// behind tells whether an earlier event of e's stream waits that the present state takes: e must not overtake it.
func (s *Saga[S]) behind(ctx context.Context, tx pgx.Tx, d *Definition[S], i Instance[S], e rocketflow.Event) (behind bool, err error) {
	_, types := d.taken(i.State)
	err = tx.QueryRow(ctx, s.engine.sql.Get("Behind"), i.Name, i.Key, types, e.Source, e.Topic, e.Subject, e.Sequence).Scan(&behind)
	if err != nil {
		return false, printable.Errorf("saga %s of %s: look at waiting events: %w", i.Name, i.Key, err)
	}
	return behind, nil
}

// waitingEvent is a row of saga_waiting on its way into a transition.
type waitingEvent struct {
	id        int64
	attempts  int
	arrivedAt time.Time
	event     rocketflow.Event
}

// wake applies the waiting events that the saga's state takes, in order of arrival, one after the other, until none fits.
// The saga's row is locked. A function that fails undoes only what it did itself; its event goes on waiting.
func (s *Saga[S]) wake(ctx context.Context, tx rocketflow.Tx, d *Definition[S], i Instance[S]) error {
	tried := []int64{}
	for !i.Finished() && len(tried) < maxWoken {
		w, err := s.nextWaiting(ctx, tx, d, i, tried)
		if errors.Is(err, pgx.ErrNoRows) {
			break
		}
		if err == nil {
			tried = append(tried, w.id)
			i, err = s.applyWaiting(ctx, tx, d, i, w)
		}
		if err != nil {
			return printable.Errorf("saga %s of %s: apply waiting events: %w", i.Name, i.Key, err)
		}
	}
	if err := s.sortOut(ctx, tx, d, i, len(tried) == maxWoken); err != nil {
		return printable.Errorf("saga %s of %s: sort out waiting events: %w", i.Name, i.Key, err)
	}
	return nil
}

func (s *Saga[S]) nextWaiting(ctx context.Context, tx pgx.Tx, d *Definition[S], i Instance[S], tried []int64) (w waitingEvent, err error) {
	topics, types := d.taken(i.State)
	e := &w.event
	var status string
	var headers []byte
	err = tx.QueryRow(ctx, s.engine.sql.Get("NextWaiting"), i.Name, i.Key, topics, types, tried).Scan(&w.id, &status, &w.attempts,
		&w.arrivedAt, &e.ID, &e.Source, &e.Topic, &e.Type, &e.Subject, &e.Sequence, &e.Previous, &e.Time, &e.Database, &e.ContentType,
		&headers, &e.Body)
	if err != nil {
		return w, err
	}
	return w, stored.SetHeaders(e, headers)
}

// applyWaiting makes the transition of one waiting event in a savepoint, and returns the saga as it is then. An error is
// one of the transaction: it can't go on.
func (s *Saga[S]) applyWaiting(ctx context.Context, tx rocketflow.Tx, d *Definition[S], i Instance[S], w waitingEvent) (Instance[S], error) {
	sp, inner, err := savepoint(ctx, tx)
	if err != nil {
		return i, err
	}
	var next Instance[S]
	failure := guarded(func() error {
		t := d.transition(i.State, routeOfEvent(w.event))
		c := cause{eventType: w.event.Type, id: w.event.ID, waited: max(0, i.ChangedAt.Sub(w.arrivedAt))}
		run := func(data *S) (err error) { return t.run(withEvent(ctx, w.event), inner, data, w.event) }
		if next, err = s.change(ctx, inner, d, i, t.to, c, run); err != nil {
			return err
		}
		_, err = inner.Exec(ctx, s.engine.sql.Get("Applied"), w.id)
		return err
	})
	if failure == nil {
		failure = sp.Commit(ctx)
	}
	if failure == nil {
		return next, nil
	}
	if err := sp.Rollback(ctx); err != nil || ctx.Err() != nil {
		return i, errors.Join(failure, err, ctx.Err())
	}
	if err := s.failed(ctx, tx, i, w, failure); err != nil {
		return i, err
	}
	return s.lock(ctx, tx, i.Key) // what the function changed in memory is not what is stored
}

// failed writes down why a waiting event could not be applied, and when it is tried again.
func (s *Saga[S]) failed(ctx context.Context, tx rocketflow.Tx, i Instance[S], w waitingEvent, failure error) error {
	info := WaitInfo{ID: w.id, Saga: i.Name, Key: i.Key, State: i.State, Type: w.event.Type, EventID: w.event.ID, Attempts: w.attempts, Err: failure}
	v := s.engine.judge(failure, w.attempts)
	if v.settled {
		if _, err := tx.Exec(ctx, s.engine.sql.Get("Applied"), w.id); err != nil {
			return err
		}
		s.ignored(tx, IgnoredInfo{i.Name, i.Key, i.State, w.event.Type, w.event.ID, Discarded})
		return nil
	}
	if panicked := (*guard.PanicError)(nil); errors.As(failure, &panicked) {
		s.engine.cfg.Logger.Error("the function of a saga panicked on an event that had waited; it is tried again or left to a person, as after any error",
			keySaga, i.Name, keyKey, i.Key, keyType, w.event.Type, keyEvent, w.event.ID, keyError, panicked.Value, keyStack, string(panicked.Stack))
	}
	info.Attempts = v.attempts
	seconds := v.after.Seconds()
	if v.gaveUp {
		seconds = -1
	}
	if _, err := tx.Exec(ctx, s.engine.sql.Get("Failed"), w.id, int32(v.attempts), errorText(failure), seconds); err != nil { //nolint:gosec // attempts are few
		return err
	}
	tx.AfterCommit(func() {
		if !v.gaveUp {
			tell(s.engine.cfg.Listener.WaitRetry, info)
			return
		}
		tell(s.engine.cfg.Listener.WaitFailed, info)
		s.engine.cfg.Logger.Error("a waiting event of a saga failed for good; see `rocketflow inspect saga`, then retry or discard it",
			keySaga, i.Name, keyKey, i.Key, keyState, i.State, keyType, w.event.Type, keyEvent, w.event.ID, keyAttempts, v.attempts,
			keyError, errorText(failure))
	})
	return nil
}

// sortOut ends a turn: what no state takes any more is ignored, what came before the beginning has its usual limit, and the
// saga's row says whether anything is left.
func (s *Saga[S]) sortOut(ctx context.Context, tx rocketflow.Tx, d *Definition[S], i Instance[S], more bool) error {
	topics, types, seconds := []string{}, []string{}, []float64{}
	for _, r := range d.routes() {
		if limit, waits := s.limit(d, r); waits && !i.Finished() && d.early(i.State, r) {
			topics, types, seconds = append(topics, r.topic), append(types, r.eventType), append(seconds, limit.Seconds())
		}
	}
	sql := &s.engine.sql
	rows, err := tx.Query(ctx, sql.Get("Release"), i.Name, i.Key, topics, types)
	if err != nil {
		return err
	}
	var eventType string
	var id uuid.UUID
	reason := NoTransition
	if i.Finished() {
		reason = Finished
	}
	var released []IgnoredInfo
	if _, err := pgx.ForEachRow(rows, []any{&eventType, &id}, func() error {
		released = append(released, IgnoredInfo{i.Name, i.Key, i.State, eventType, id, reason})
		return nil
	}); err != nil {
		return err
	}
	for _, info := range released {
		s.ignored(tx, info)
	}
	if _, err := tx.Exec(ctx, sql.Get("Begun"), i.Name, i.Key, topics, types, seconds); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, sql.Get("Mark"), i.Name, i.Key, more)
	return err
}

// look is the engine's own turn at a saga.
func (s *Saga[S]) look(ctx context.Context, tx rocketflow.Tx, key string) error {
	i, err := s.lock(ctx, tx, key)
	if errors.Is(err, ErrNotFound) {
		return nil // not yet
	}
	if err != nil {
		return err
	}
	if i.Finished() {
		return s.sortOut(ctx, tx, s.latest, i, false)
	}
	d, err := s.definition(i)
	if err != nil {
		return err
	}
	return s.wake(ctx, tx, d, i)
}

// savepoint begins one in tx. What is published in it, and what is registered to follow the commit, goes with it.
func savepoint(ctx context.Context, tx rocketflow.Tx) (pgx.Tx, rocketflow.Tx, error) {
	sp, err := tx.Begin(ctx)
	if err != nil {
		return nil, nil, err
	}
	if inner, ok := sp.(rocketflow.Tx); ok {
		return sp, functionTx{inner}, nil
	}
	// A Tx that some application decorates: its savepoints don't publish, so that is put off until they are released.
	late := &lateTx{Tx: sp, outer: tx}
	return late, functionTx{late}, nil
}

var errEnds = errors.New("the saga's engine ends the transaction of a function, not the function")

// functionTx keeps a function from ending the savepoint that it runs in.
type functionTx struct{ rocketflow.Tx }

func (functionTx) Commit(context.Context) error   { return errEnds }
func (functionTx) Rollback(context.Context) error { return errEnds }

// lateTx is a savepoint that publishes when it is released.
type lateTx struct {
	pgx.Tx
	outer  rocketflow.Tx
	events []rocketflow.Payload
	after  []func()
}

func (t *lateTx) Publish(_ context.Context, events ...rocketflow.Payload) error {
	t.events = append(t.events, events...)
	return nil
}

func (t *lateTx) AfterCommit(fn func()) { t.after = append(t.after, fn) }

// Begin implements pgx.Tx. Its savepoint publishes in turn when it is released.
func (t *lateTx) Begin(ctx context.Context) (pgx.Tx, error) {
	inner, err := t.Tx.Begin(ctx)
	if err != nil {
		return nil, err
	}
	return &lateTx{Tx: inner, outer: t}, nil
}

func (t *lateTx) Commit(ctx context.Context) error {
	if len(t.events) > 0 {
		if err := t.outer.Publish(ctx, slices.Clone(t.events)...); err != nil {
			return err
		}
	}
	if err := t.Tx.Commit(ctx); err != nil {
		return err
	}
	for _, fn := range t.after {
		t.outer.AfterCommit(fn)
	}
	return nil
}
