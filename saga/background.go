package saga

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/migrations"
)

// background is the goroutines of a started engine.
type background struct {
	mu     sync.Mutex
	cancel context.CancelFunc // nil while stopped
	done   sync.WaitGroup
}

const (
	expireBatch = 500  // how many rows one statement deletes
	lookBatch   = 200  // how many waiting events one statement takes
	meetBatch   = 256  // how many sagas one statement asks for
	maxCounted  = 1000 // sagas of one state that are counted
	maxStates   = 1000 // groups of sagas by name, version and state
	lookTime    = 30 * time.Second
)

// Start verifies the schema (rocketflow.ErrNotMigrated) and that this program knows the states and versions of the sagas
// that run (*UnknownSagasError). Then it begins to look after waiting events and to delete what is older than the
// retention. Events are handled whether or not the engine is started: that is the router's; start the engine first. ctx
// bounds the start only. Starting a started engine does nothing.
func (e *Engine) Start(ctx context.Context) error {
	b := &e.background
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cancel != nil {
		return nil
	}
	if err := migrations.Check(ctx, e.cfg.Pool, e.cfg.Schema); err != nil {
		return fmt.Errorf("start sagas: %w", err)
	}
	if err := e.checkStates(ctx); err != nil {
		return fmt.Errorf("start sagas: %w", err)
	}
	if e.cfg.Transactor == nil {
		e.cfg.Logger.Warn("sagas have no Transactor: a waiting event is applied only by the next transition of its saga; set saga.Config.Transactor")
	}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	b.cancel = cancel
	b.done.Go(func() { e.lookLoop(work) })
	if e.cfg.Retention >= 0 {
		b.done.Go(func() { e.expireLoop(work) })
	}
	return nil
}

// Stop ends what Start began. Stopping a stopped engine does nothing.
func (e *Engine) Stop(context.Context) error {
	b := &e.background
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cancel == nil {
		return nil
	}
	b.cancel() // ends the statement that runs, too
	b.done.Wait()
	b.cancel = nil
	e.repeated.Flush()
	return nil
}

// checkStates refuses to start beside sagas that would be stuck.
func (e *Engine) checkStates(ctx context.Context) error {
	rows, err := e.cfg.Pool.Query(ctx, e.sql.Get("States"), int32(maxCounted), int32(maxStates))
	if err != nil {
		return fmt.Errorf("read states of sagas: %w", err)
	}
	groups, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (g UnknownSagas, err error) {
		err = row.Scan(&g.Saga, &g.Version, &g.State, &g.Count)
		return g, err
	})
	if err != nil {
		return fmt.Errorf("read states of sagas: %w", err)
	}
	known := e.registry()
	var unknown []UnknownSagas
	for _, g := range groups {
		s := known[g.Saga]
		if s == nil {
			e.cfg.Logger.Warn("sagas run that this process has no definition for: its events are handled elsewhere, or never; register the definition, or end these sagas",
				keySaga, g.Saga, keyVersion, g.Version, keyState, g.State, keySagas, g.Count)
			continue
		}
		if g.Reason = s.unknown(g.Version, g.State); g.Reason != "" {
			unknown = append(unknown, g)
		}
	}
	if len(unknown) > 0 {
		return &UnknownSagasError{unknown}
	}
	return nil
}

// pause waits on the engine's clock. false: the work ends.
func (e *Engine) pause(ctx context.Context, moved <-chan struct{}, d time.Duration) bool {
	next, giveUp := e.cfg.Clock.After(d)
	defer giveUp()
	select {
	case <-ctx.Done():
	case <-moved:
	case <-next:
	}
	return ctx.Err() == nil
}

func (e *Engine) expireLoop(ctx context.Context) {
	for {
		moved := clock.Moved(e.cfg.Clock)
		n, err := e.expire(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			e.cfg.Logger.Warn("retention of sagas failed; it is tried again", keyError, err)
		case n > 0 && e.cfg.Listener.Expired != nil:
			e.cfg.Listener.Expired(n)
		}
		if n == expireBatch {
			continue
		}
		if err := e.expireWaiting(ctx); err != nil && ctx.Err() == nil {
			e.cfg.Logger.Warn("retention of waiting events failed; it is tried again", keyError, err)
		}
		if !e.pause(ctx, moved, e.cfg.ExpireInterval) {
			return
		}
	}
}

func (e *Engine) expire(ctx context.Context) (n int, err error) {
	err = e.within(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, e.sql.Get("Expire"), e.cfg.Retention.Seconds(), int32(expireBatch)).Scan(&n)
	})
	if err != nil {
		return 0, fmt.Errorf("delete finished sagas: %w", err)
	}
	return n, nil
}

// within runs the engine's own statements, at an isolation at which a row that changes meanwhile is no error, whatever the
// database's default is.
func (e *Engine) within(ctx context.Context, fn func(tx pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, e.cfg.Pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite}, fn)
}

// each runs one of the engine's own statements and calls fn for each row, whose values are in the places.
func (e *Engine) each(ctx context.Context, query string, args, places []any, fn func() error) (n int64, err error) {
	err = e.within(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, e.sql.Get(query), args...)
		if err != nil {
			return err
		}
		tag, err := pgx.ForEachRow(rows, places, fn)
		n = tag.RowsAffected()
		return err
	})
	return n, err
}

// expireWaiting deletes what failed or expired a retention ago, and says so.
func (e *Engine) expireWaiting(ctx context.Context) error {
	for {
		var saga, key, eventType, status string
		var id uuid.UUID
		var first []any
		args, places := []any{e.cfg.Retention.Seconds(), int32(expireBatch)}, []any{&saga, &key, &eventType, &id, &status}
		n, err := e.each(ctx, "ExpireWaiting", args, places, func() error {
			if first == nil {
				first = []any{keySaga, saga, keyKey, key, keyType, eventType, keyEvent, id, "status", status}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("delete waiting events: %w", err)
		}
		if n > 0 {
			e.cfg.Logger.Warn("deleted waiting events that failed or expired a retention ago and that nobody dealt with; one of them is named",
				append(first, keyEvents, n)...)
		}
		if n < expireBatch {
			return nil
		}
	}
}

// meet has the engine look whether a saga and an event that came before it have met. Without room, or while the engine is
// stopped, the regular look finds it.
func (e *Engine) meet(saga, key string) {
	select {
	case e.met <- sagaKey{saga, key}:
	default:
	}
}

// lookLoop applies waiting events that no transition applies, and lets those expire that waited for too long.
func (e *Engine) lookLoop(ctx context.Context) {
	for {
		moved := clock.Moved(e.cfg.Clock)
		more := false
		for name, s := range e.registry() {
			again, err := e.lookAfter(ctx, name, s)
			if err != nil && ctx.Err() == nil {
				e.cfg.Logger.Warn("looking after waiting events of a saga failed; it is tried again", keySaga, name, keyError, err)
			}
			more = more || again && err == nil
		}
		if ctx.Err() != nil {
			return
		}
		if more {
			continue
		}
		if !e.rest(ctx, moved) {
			return
		}
	}
}

// rest waits for the next look, and meanwhile for sagas that meet their events. false: the work ends.
func (e *Engine) rest(ctx context.Context, moved <-chan struct{}) bool {
	next, giveUp := e.cfg.Clock.After(e.cfg.LookInterval)
	defer giveUp()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-moved:
			return true
		case <-next:
			return true
		case k := <-e.met:
			if err := e.meeting(ctx, k); err != nil && ctx.Err() == nil {
				e.cfg.Logger.Warn("looking after waiting events of sagas that began failed; it is tried again", keyError, err)
			}
		}
	}
}

// meeting looks after sagas that have begun, together with an event that had come before.
func (e *Engine) meeting(ctx context.Context, first sagaKey) error {
	sagas, keys := []string{first.saga}, []string{first.key}
	for more := true; more && len(keys) < meetBatch; {
		select {
		case k := <-e.met:
			sagas, keys = append(sagas, k.saga), append(keys, k.key)
		default:
			more = false
		}
	}
	var met []sagaKey
	var k sagaKey
	if _, err := e.each(ctx, "Met", []any{sagas, keys}, []any{&k.saga, &k.key}, func() error {
		met = append(met, k)
		return nil
	}); err != nil {
		return err
	}
	known := e.registry()
	slices.SortFunc(met, func(a, b sagaKey) int { return strings.Compare(a.saga+"\x00"+a.key, b.saga+"\x00"+b.key) })
	for _, k := range slices.Compact(met) {
		if s := known[k.saga]; s != nil {
			if err := e.look(ctx, s, k.key); err != nil {
				return err
			}
		}
	}
	return nil
}

// lookAfter takes a batch of one saga's waiting events that are due. true: there may be more.
func (e *Engine) lookAfter(ctx context.Context, name string, s registered) (bool, error) {
	var (
		key, status string
		begun       bool
		r           route
		version     *int
		state       *string
		finished    bool
		keys        []string
	)
	places := []any{&key, &status, &begun, &r.topic, &r.eventType, &version, &state, &finished}
	taken, err := e.each(ctx, "Due", []any{name, int32(lookBatch)}, places, func() error {
		if state != nil && (status == "retry" || !begun || finished || s.takes(*version, *state, r) || s.unknown(*version, *state) != "") {
			keys = append(keys, key)
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) {
		if err := e.look(ctx, s, key); err != nil {
			e.cfg.Logger.Warn("a saga's waiting events can't be applied; they wait and it is tried again", keySaga, name, keyKey, key, keyError, err)
		}
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
	}
	expired, err := e.expireDue(ctx, name)
	return taken == lookBatch || expired == lookBatch, err
}

// look applies what waits for one saga, in a transaction of its own.
func (e *Engine) look(ctx context.Context, s registered, key string) error {
	if e.cfg.Transactor == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	return guarded(func() error {
		return e.cfg.Transactor.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error { return s.look(ctx, tx, key) })
	})
}

// expireDue lets events expire that waited for too long, and says so.
func (e *Engine) expireDue(ctx context.Context, name string) (int, error) {
	type late struct {
		WaitInfo
		arrivedAt time.Time
	}
	var expired []late
	row := late{WaitInfo: WaitInfo{Saga: name}}
	places := []any{&row.ID, &row.Key, &row.Type, &row.EventID, &row.State, &row.arrivedAt, &row.ExpiresAt}
	if _, err := e.each(ctx, "ExpireDue", []any{name, int32(lookBatch)}, places, func() error {
		expired = append(expired, row)
		return nil
	}); err != nil {
		return 0, fmt.Errorf("expire waiting events: %w", err)
	}
	counts := map[string]int{}
	for _, l := range expired {
		counts[l.Type]++
	}
	for _, l := range expired {
		tell(e.cfg.Listener.WaitExpired, l.WaitInfo)
		if n := counts[l.Type]; n > 0 {
			counts[l.Type] = 0 // one line for each type
			e.cfg.Logger.Error("events waited too long for a saga that takes them; see `rocketflow inspect saga`, then retry or discard them; one of them is named",
				keySaga, name, keyKey, l.Key, keyState, l.State, keyType, l.Type, keyEvent, l.EventID, keyEvents, n, "waited", l.ExpiresAt.Sub(l.arrivedAt))
		}
	}
	return len(expired), nil
}
