package saga

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/listen"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/stored"
)

// maxApplied is the number of waiting events that one transaction applies. The engine applies what is left in further
// transactions, at once after the commit.
const maxApplied = 32

// storeWaiting stores an event that has to wait, in the transaction that settles it for the router. The saga's row is
// locked, or doesn't exist.
func (s *Saga[S]) storeWaiting(ctx context.Context, tx rocketflow.Tx, i Instance[S], e rocketflow.Event, limit time.Duration, begun bool) error {
	wrap := func(err error) error {
		return printable.Errorf("saga %s of %s: store waiting event %s: %w", i.Name, i.Key, e.ID, err)
	}
	headers, err := stored.Headers(e)
	if err != nil {
		return wrap(err)
	}
	w := WaitInfo{Saga: i.Name, Key: i.Key, State: i.State, Type: e.Type, EventID: e.ID}
	err = tx.QueryRow(ctx, s.engine.sql.Get("InsertWaiting"), i.Name, i.Key, begun, i.State, e.ID.String(), e.Source, e.Topic, e.Type,
		e.Subject, e.Sequence, e.Previous, e.Time, e.Database, e.ContentType, headers, limit.Seconds(), stored.Body(e)).Scan(&w.ID, &w.ExpiresAt)
	if err != nil {
		return wrap(err)
	}
	tx.AfterCommit(func() {
		listen.Notify(s.engine.cfg.Listener.Waiting, w)
		if !begun {
			s.engine.recheck(i.Name, i.Key) // it may have begun in a transaction that this one did not see
		}
	})
	return nil
}

// hasEarlierWaiting reports whether an earlier event of e's stream waits that the saga's state accepts: e must not overtake
// it.
func (s *Saga[S]) hasEarlierWaiting(ctx context.Context, tx pgx.Tx, d *Definition[S], i Instance[S], e rocketflow.Event) (has bool, err error) {
	_, types := d.accepted(i.State)
	err = tx.QueryRow(ctx, s.engine.sql.Get("HasEarlierWaiting"), i.Name, i.Key, types, e.Source, e.Topic, e.Subject, e.Sequence).Scan(&has)
	if err != nil {
		return false, printable.Errorf("saga %s of %s: read waiting events: %w", i.Name, i.Key, err)
	}
	return has, nil
}

// waitingRow is a row of saga_waiting that is about to be applied.
type waitingRow struct {
	id        int64
	attempts  int
	arrivedAt time.Time
	event     rocketflow.Event
}

// applyAll applies the waiting events that the saga's state accepts, one after the other in order of arrival, until the
// state accepts none of those that are left. The saga's row is locked. A function that fails takes back only its own effects, and its
// event waits for another attempt.
//
// An event that waits for the beginning does not lock the saga's row, so its transaction may commit at any time meanwhile. It
// is either applied here or keeps begun = false, which the recheck after its commit looks for: therefore setBegun comes first.
func (s *Saga[S]) applyAll(ctx context.Context, tx rocketflow.Tx, d *Definition[S], i Instance[S]) error {
	if err := s.setBegun(ctx, tx, d, i); err != nil {
		return printable.Errorf("saga %s of %s: update waiting events: %w", i.Name, i.Key, err)
	}
	tried, revision := []int64{}, i.Revision
	for !i.Finished() && len(tried) < maxApplied {
		w, err := s.nextWaiting(ctx, tx, d, i, tried)
		if errors.Is(err, pgx.ErrNoRows) {
			break
		}
		if err == nil {
			tried = append(tried, w.id)
			i, err = s.applyOne(ctx, tx, d, i, w)
		}
		if err != nil {
			return printable.Errorf("saga %s of %s: apply waiting events: %w", i.Name, i.Key, err)
		}
	}
	more := len(tried) == maxApplied
	if err := s.updateWaiting(ctx, tx, d, i, more); err != nil {
		return printable.Errorf("saga %s of %s: update waiting events: %w", i.Name, i.Key, err)
	}
	if more && i.Revision > revision { // if all failed, the engine pauses before it tries others
		tx.AfterCommit(func() { s.engine.recheck(i.Name, i.Key) })
	}
	return nil
}

// setBegun gives the events that came before the saga's beginning the limit of their type, and marks them as begun.
func (s *Saga[S]) setBegun(ctx context.Context, tx pgx.Tx, d *Definition[S], i Instance[S]) error {
	topics, types, seconds := s.acceptedLater(d, i)
	_, err := tx.Exec(ctx, s.engine.sql.Get("SetBegun"), i.Name, i.Key, topics, types, seconds)
	return err
}

// acceptedLater returns the topics, types and limits, side by side, of the events that wait for a state of the saga: for the
// present one, or one that can be reached from it.
func (s *Saga[S]) acceptedLater(d *Definition[S], i Instance[S]) (topics, types []string, seconds []float64) {
	topics, types, seconds = []string{}, []string{}, []float64{}
	for _, r := range d.routes() {
		if limit, waits := s.waitLimit(d, r); waits && !i.Finished() && d.acceptsLater(i.State, r) {
			topics, types, seconds = append(topics, r.topic), append(types, r.eventType), append(seconds, limit.Seconds())
		}
	}
	return topics, types, seconds
}

// nextWaiting returns the first waiting event that the saga's state accepts and that is not in tried, or pgx.ErrNoRows.
func (s *Saga[S]) nextWaiting(ctx context.Context, tx pgx.Tx, d *Definition[S], i Instance[S], tried []int64) (w waitingRow, err error) {
	topics, types := d.accepted(i.State)
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

// applyOne makes the transition of one waiting event in a savepoint, and returns the saga after it. A failure of the
// function is recorded. An error is one of the transaction, which can't go on.
func (s *Saga[S]) applyOne(ctx context.Context, tx rocketflow.Tx, d *Definition[S], i Instance[S], w waitingRow) (Instance[S], error) {
	sp, inner, err := savepoint(ctx, tx)
	if err != nil {
		return i, err
	}
	var next Instance[S]
	failure := guarded(func() error {
		t := d.transition(i.State, routeOfEvent(w.event))
		c := cause{eventType: w.event.Type, id: w.event.ID, waited: max(0, i.ChangedAt.Sub(w.arrivedAt))}
		run := func(ctx context.Context, data *S) error { return t.run(withEvent(ctx, w.event), inner, data, w.event) }
		if next, err = s.change(ctx, inner, d, i, t.to, c, run); err != nil {
			return err
		}
		_, err = inner.Exec(ctx, s.engine.sql.Get("DeleteWaiting"), w.id)
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
	if err := s.recordFailure(ctx, tx, i, w, failure); err != nil {
		return i, err
	}
	return s.lock(ctx, tx, i.Key) // the function may have changed the data in memory
}

// recordFailure stores why a waiting event could not be applied and when it is tried again.
func (s *Saga[S]) recordFailure(ctx context.Context, tx rocketflow.Tx, i Instance[S], w waitingRow, failure error) error {
	info := WaitInfo{ID: w.id, Saga: i.Name, Key: i.Key, State: i.State, Type: w.event.Type, EventID: w.event.ID, Attempts: w.attempts, Err: failure}
	d := s.engine.decide(failure, w.attempts)
	if d.settled {
		if _, err := tx.Exec(ctx, s.engine.sql.Get("DeleteWaiting"), w.id); err != nil {
			return err
		}
		s.notifyIgnored(tx, IgnoredInfo{i.Name, i.Key, i.State, w.event.Type, w.event.ID, Discarded})
		return nil
	}
	if panicked := (*guard.PanicError)(nil); errors.As(failure, &panicked) {
		s.engine.cfg.Logger.Error("the function of a saga panicked on a waiting event; the event is tried again, or fails after Config.WaitAttempts attempts: fix the function",
			keySaga, i.Name, keyKey, i.Key, keyType, w.event.Type, keyEvent, w.event.ID, keyError, panicked.Value, keyStack, string(panicked.Stack))
	}
	info.Attempts = d.attempts
	seconds := d.after.Seconds()
	if d.failed {
		seconds = -1
	}
	if _, err := tx.Exec(ctx, s.engine.sql.Get("RecordFailure"), w.id, int32(d.attempts), errorText(failure), seconds); err != nil { //nolint:gosec // attempts are few
		return err
	}
	tx.AfterCommit(func() {
		if !d.failed {
			listen.Notify(s.engine.cfg.Listener.WaitRetry, info)
			return
		}
		listen.Notify(s.engine.cfg.Listener.WaitFailed, info)
		s.engine.cfg.Logger.Error("a waiting event of a saga failed and is not tried again; look at it with `rocketflow inspect saga`, then retry or discard it",
			keySaga, i.Name, keyKey, i.Key, keyState, i.State, keyType, w.event.Type, keyEvent, w.event.ID, keyAttempts, d.attempts,
			keyError, errorText(failure))
	})
	return nil
}

// updateWaiting brings what still waits for the saga up to date with its state: events that no state accepts any more are
// ignored, and the saga's row says whether anything waits. more reports whether there may be events that the state accepts.
func (s *Saga[S]) updateWaiting(ctx context.Context, tx rocketflow.Tx, d *Definition[S], i Instance[S], more bool) error {
	topics, types, _ := s.acceptedLater(d, i)
	sql := &s.engine.sql
	rows, err := tx.Query(ctx, sql.Get("DeleteUnacceptable"), i.Name, i.Key, topics, types)
	if err != nil {
		return err
	}
	var eventType string
	var id uuid.UUID
	reason := NoTransition
	if i.Finished() {
		reason = Finished
	}
	var deleted []IgnoredInfo
	if _, err := pgx.ForEachRow(rows, []any{&eventType, &id}, func() error {
		deleted = append(deleted, IgnoredInfo{i.Name, i.Key, i.State, eventType, id, reason})
		return nil
	}); err != nil {
		return err
	}
	for _, info := range deleted {
		s.notifyIgnored(tx, info)
	}
	_, err = tx.Exec(ctx, sql.Get("SetWaiting"), i.Name, i.Key, more)
	return err
}

// applyWaitingOf implements registered.
func (s *Saga[S]) applyWaitingOf(ctx context.Context, tx rocketflow.Tx, key string) error {
	i, err := s.lock(ctx, tx, key)
	if errors.Is(err, ErrNotFound) {
		return nil // it has not begun
	}
	if err != nil {
		return err
	}
	if i.Finished() {
		return s.updateWaiting(ctx, tx, s.latest, i, false)
	}
	d, err := s.definition(i)
	if err != nil {
		return err
	}
	return s.applyAll(ctx, tx, d, i)
}
