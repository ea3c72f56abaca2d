package outbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rocketflow/rocketflow"
)

// pending is what a transaction will publish and do if it commits.
type pending struct {
	events []rocketflow.Event
	// unordered holds the ids' places of events that take no place in a stream.
	unordered map[int]bool
	recorded  int // events[:recorded] have their row already
	after     []func()
}

// tx is a rocketflow.Tx. It is also used for its savepoints, which share what is pending.
type tx struct {
	pgx.Tx
	outbox  *Outbox
	pending *pending
	own     *lazyTx // what Tx is, unless joined
	joined  bool

	committed     bool
	savepoint     bool
	events, after int // how much was pending when the savepoint began
}

// Publish implements rocketflow.Tx.
func (t *tx) Publish(ctx context.Context, payloads ...rocketflow.Payload) error {
	if err := t.outbox.admit(); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	events := make([]rocketflow.Event, len(payloads))
	for i, p := range payloads {
		e, err := t.outbox.newEvent(p)
		if err != nil {
			return fmt.Errorf("publish event %d of %d: %w", i+1, len(payloads), err)
		}
		events[i] = e
	}
	for i, e := range events {
		if e.Subject == "" || payloads[i].EventMeta().Unordered {
			t.pending.unordered[len(t.pending.events)] = true
		}
		t.pending.events = append(t.pending.events, e)
	}
	if t.joined {
		// The owner of the transaction may commit it without us. Then a row is there and the sweep finds it.
		return t.record(ctx)
	}
	return nil
}

// AfterCommit implements rocketflow.Tx.
func (t *tx) AfterCommit(fn func()) { t.pending.after = append(t.pending.after, fn) }

// Begin starts a savepoint. What is published in it goes with it if it is rolled back.
func (t *tx) Begin(ctx context.Context) (pgx.Tx, error) {
	inner, err := t.Tx.Begin(ctx)
	if err != nil {
		return nil, err
	}
	return &tx{
		Tx: inner, outbox: t.outbox, pending: t.pending, joined: t.joined,
		savepoint: true, events: len(t.pending.events), after: len(t.pending.after),
	}, nil
}

// Rollback implements pgx.Tx.
func (t *tx) Rollback(ctx context.Context) error {
	err := t.Tx.Rollback(ctx)
	if errors.Is(err, pgx.ErrTxClosed) {
		return err
	}
	if !t.savepoint {
		*t.pending = pending{unordered: map[int]bool{}}
		return err
	}
	t.pending.truncate(t.events, t.after)
	return err
}

func (p *pending) truncate(events, after int) {
	for i := events; i < len(p.events); i++ {
		delete(p.unordered, i)
	}
	p.events, p.after, p.recorded = p.events[:events], p.after[:after], min(p.recorded, events)
}

// Commit implements rocketflow.Tx: it records the events, prepares their half messages if they get any, commits, and
// ends them. An error means that the transaction is not committed or, where Postgres' answer was lost, that nobody knows;
// then the events follow the transaction's fate all the same. Once the transaction is committed Commit returns nil,
// whatever the broker does.
func (t *tx) Commit(ctx context.Context) error {
	if t.savepoint {
		return t.Tx.Commit(ctx)
	}
	if len(t.pending.events) == 0 {
		if err := t.Tx.Commit(ctx); err != nil {
			return err
		}
		t.committed = true
		t.runAfter()
		return nil
	}
	r := t.outbox.current()
	if r == nil {
		return errors.Join(ErrNotStarted, t.Rollback(ctx))
	}
	ticket := r.gears.take(t.pending.events)
	defer ticket.close()
	var err error
	if ticket.half {
		err = t.commitBetweenHalves(ctx, r, ticket)
	} else {
		err = t.commitThenRelay(ctx, r)
	}
	if err != nil {
		return err
	}
	t.committed = true
	t.runAfter()
	return nil
}

// commitThenRelay is gear B.
func (t *tx) commitThenRelay(ctx context.Context, r *running) error {
	var err error
	if t.own == nil || t.own.plain() || t.pending.recorded > 0 {
		if err = t.record(ctx); err != nil {
			return errors.Join(err, t.Rollback(ctx))
		}
		err = t.Tx.Commit(ctx)
	} else {
		var open bool
		if open, err = t.recordAndCommit(ctx, r); open {
			return errors.Join(err, t.Rollback(ctx))
		}
	}
	events := t.pending.events
	if err != nil {
		t.outbox.listener.RolledBack(events, !refused(err))
		return err
	}
	t.outbox.listener.Committed(events)
	r.relay.offer(events...)
	return nil
}

// commitBetweenHalves is gear A.
func (t *tx) commitBetweenHalves(ctx context.Context, r *running, ticket *ticket) error {
	if err := t.record(ctx); err != nil {
		return errors.Join(err, t.Rollback(ctx))
	}
	events := t.pending.events
	halves, err := t.outbox.prepare(ctx, r, ticket, events)
	if err != nil {
		t.outbox.abandon(ctx, r, ticket, halves)
		return errors.Join(err, t.Rollback(ctx))
	}
	if err := t.Tx.Commit(ctx); err != nil {
		unknown := !refused(err)
		if !unknown {
			t.outbox.abandon(ctx, r, ticket, halves)
		}
		t.outbox.listener.RolledBack(events, unknown)
		return err
	}
	t.outbox.listener.Committed(events)
	t.outbox.finish(ctx, r, ticket, halves)
	return nil
}

func (t *tx) runAfter() {
	for _, fn := range t.pending.after {
		fn()
	}
}

// refused tells whether Postgres said that it did not commit. A FATAL error says nothing of the kind: the server may be
// ended while it waits for a replica, with the commit already on its disk.
func refused(err error) bool {
	if errors.Is(err, pgx.ErrTxCommitRollback) || errors.Is(err, pgx.ErrTxClosed) {
		return true
	}
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.SeverityUnlocalized == "ERROR"
}
