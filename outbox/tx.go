package outbox

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/lazytx"
)

// tx is a rocketflow.Tx: a transaction, a savepoint of it, or a caller's wrapper of one of them. After its end each method
// returns pgx.ErrTxClosed.
type tx struct {
	pgx.Tx  // runs the statements
	shared  *transaction
	level   *level
	wrapper bool // Tx is a caller's, around a tx of the same outbox
}

// closed reports whether the transaction or the savepoint has ended, by itself or with an outer one.
func (t *tx) closed() bool { return t.level.ended || t.shared.gone() }

// Publish implements rocketflow.Tx.
func (t *tx) Publish(ctx context.Context, payloads ...rocketflow.Payload) error {
	s := t.shared
	if t.closed() {
		return fmt.Errorf("publish: %w", pgx.ErrTxClosed)
	}
	if err := s.outbox.admit(); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	events, unordered, err := s.outbox.newEvents(ctx, payloads)
	if err != nil {
		return err
	}
	if s.eagerDue {
		if err := s.becomeEager(ctx); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	p := &s.publication
	before := len(p.events)
	p.add(events, unordered)
	if s.eager {
		if err := p.record(ctx); err != nil {
			p.truncate(before, before)
			return fmt.Errorf("publish: %w", err)
		}
	}
	return nil
}

// AfterCommit implements rocketflow.Tx.
func (t *tx) AfterCommit(fn func()) {
	s := t.shared
	c := callback{fn: fn}
	var err error
	switch {
	case t.closed():
		err = pgx.ErrTxClosed
	case s.eager:
		ctx, cancel := context.WithTimeout(context.Background(), beginTimeout)
		defer cancel()
		c.marker, err = s.leaveMarker(ctx)
		s.logged = cmp.Or(s.logged, err)
	}
	if err != nil {
		s.outbox.log.Error("a function of AfterCommit will not be called: register it before the transaction ends", keyError, err)
		return
	}
	s.callbacks = append(s.callbacks, c)
	if s.eager {
		s.marked = len(s.callbacks)
	}
}

// Begin starts a savepoint. Events that are published in it are discarded if it is rolled back.
func (t *tx) Begin(ctx context.Context) (pgx.Tx, error) {
	s := t.shared
	if t.closed() {
		return nil, pgx.ErrTxClosed
	}
	if s.lazy != nil && !t.wrapper {
		if err := s.lazy.EnsureBegun(ctx); err != nil {
			return nil, err
		}
		s.begun++ // as pgx counts, whether it succeeds or not
	}
	if s.eagerDue {
		if err := s.becomeEager(ctx); err != nil {
			return nil, err
		}
	}
	number := s.begun
	inner, err := t.Tx.Begin(ctx)
	if err != nil {
		return nil, err
	}
	if t.wrapper { // the savepoint below it is on the stack already
		return s.wrap(inner), nil
	}
	return &tx{Tx: inner, shared: s, level: s.push(number)}, nil
}

// Rollback implements pgx.Tx.
func (t *tx) Rollback(ctx context.Context) error {
	s := t.shared
	if t.level.ended {
		return pgx.ErrTxClosed
	}
	if t.wrapper {
		defer s.end(t.level)
		return t.Tx.Rollback(ctx)
	}
	savepoint := t.level != s.levels[0]
	s.end(t.level)
	switch {
	case !savepoint:
		return s.rollback(ctx, nil)
	case s.gone():
		return pgx.ErrTxClosed
	}
	err := t.Tx.Rollback(ctx)
	if err != nil && !s.gone() {
		// The work of the savepoint may still be there, while its events are dropped.
		s.rollbackOnly = fmt.Errorf("a savepoint could not be rolled back: %w", err)
	}
	s.undo(t.level)
	return err
}

// Commit implements rocketflow.Tx: it commits the transaction and its publication. nil means that Postgres has committed.
// An error that matches rocketflow.ErrCommitUnknown means that the outcome is unknown because Postgres' response was lost.
// After any other error Postgres has not committed; if it matches a *pgconn.PgError with the code 40001 or 40P01, the
// transaction may succeed when it runs again. In each case the events are sent if and only if it has.
func (t *tx) Commit(ctx context.Context) error {
	s := t.shared
	if t.level.ended {
		return pgx.ErrTxClosed
	}
	if t.wrapper || t.level != s.levels[0] {
		gone := !t.wrapper && s.gone()
		defer s.end(t.level)
		if gone {
			return pgx.ErrTxClosed
		}
		return t.Tx.Commit(ctx)
	}
	s.end(t.level) // AfterCommit's functions find it ended
	if s.err = s.commit(ctx); s.err == nil {
		s.committed = true
		s.runCallbacks()
	}
	return s.err
}

// Exec implements pgx.Tx.
func (t *tx) Exec(ctx context.Context, sql string, arguments ...any) (pgconn.CommandTag, error) {
	if t.closed() {
		return pgconn.CommandTag{}, pgx.ErrTxClosed
	}
	control, err := t.shared.beforeStatement(ctx, sql)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	tag, err := t.Tx.Exec(ctx, sql, arguments...)
	if control && err == nil {
		t.shared.afterControl(sql)
	}
	return tag, err
}

// Query implements pgx.Tx.
func (t *tx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if t.closed() {
		return lazytx.Failed(pgx.ErrTxClosed).Query()
	}
	control, err := t.shared.beforeStatement(ctx, sql)
	if err != nil {
		return lazytx.Failed(err).Query()
	}
	rows, err := t.Tx.Query(ctx, sql, args...)
	if control && err == nil {
		t.shared.afterControl(sql) // if it fails later, the transaction can't commit
	}
	return rows, err
}

// QueryRow implements pgx.Tx.
func (t *tx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if t.closed() {
		return lazytx.Failed(pgx.ErrTxClosed).QueryRow()
	}
	control, err := t.shared.beforeStatement(ctx, sql)
	if err != nil {
		return lazytx.Failed(err).QueryRow()
	}
	row := t.Tx.QueryRow(ctx, sql, args...)
	if control {
		t.shared.afterControl(sql)
	}
	return row
}

// SendBatch implements pgx.Tx.
func (t *tx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if t.closed() {
		return pgx.FailedBatchResults(b, pgx.ErrTxClosed)
	}
	var control []string
	for _, q := range b.QueuedQueries {
		yes, err := t.shared.beforeStatement(ctx, q.SQL)
		if err != nil {
			return pgx.FailedBatchResults(b, err)
		}
		if yes {
			control = append(control, q.SQL)
		}
	}
	results := t.Tx.SendBatch(ctx, b)
	for _, sql := range control {
		t.shared.afterControl(sql)
	}
	return results
}

// Prepare implements pgx.Tx.
func (t *tx) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	if t.closed() {
		return nil, pgx.ErrTxClosed
	}
	if _, err := t.shared.beforeStatement(ctx, sql); err != nil { // it is run by its name
		return nil, err
	}
	return t.Tx.Prepare(ctx, name, sql)
}

// CopyFrom implements pgx.Tx.
func (t *tx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error) {
	if t.closed() {
		return 0, pgx.ErrTxClosed
	}
	return t.Tx.CopyFrom(ctx, table, columns, rows)
}

// LargeObjects implements pgx.Tx.
func (t *tx) LargeObjects() pgx.LargeObjects {
	if t.closed() {
		return lazytx.FailedLargeObjects(pgx.ErrTxClosed)
	}
	return t.Tx.LargeObjects()
}

// Conn implements pgx.Tx. Statements on the connection are part of the transaction but not seen by tx, so the
// transaction records eagerly from then on.
func (t *tx) Conn() *pgx.Conn {
	conn := t.Tx.Conn()
	s := t.shared
	if s.lazy == nil || t.wrapper || t.closed() {
		return conn
	}
	s.exposed = conn
	s.outbox.exposed.put(conn, s)
	if conn.PgConn().IsBusy() {
		s.eagerDue = !s.eager
		return conn
	}
	ctx, cancel := context.WithTimeout(context.Background(), beginTimeout)
	defer cancel()
	if err := s.becomeEager(ctx); err != nil {
		s.rollbackOnly = err
	}
	return conn
}

// TxStatus returns the status of the connection as pgconn.PgConn does. Unlike Conn it doesn't hand the connection out.
func (t *tx) TxStatus() byte {
	if lazy := t.shared.lazy; lazy != nil {
		return lazy.TxStatus()
	}
	return t.Tx.Conn().PgConn().TxStatus()
}

// IsClosed reports whether the connection is closed. Unlike Conn it doesn't hand the connection out.
func (t *tx) IsClosed() bool {
	if lazy := t.shared.lazy; lazy != nil {
		return lazy.IsClosed()
	}
	return t.Tx.Conn().IsClosed()
}

// beginTimeout bounds the round trips of methods that get no context.
const beginTimeout = 10 * time.Second
