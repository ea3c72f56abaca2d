package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rocketflow/rocketflow"
)

// tx is a rocketflow.Tx: a transaction, a savepoint of it, or a caller's wrapper of one of them. After its end all that it
// offers is answered with pgx.ErrTxClosed.
type tx struct {
	pgx.Tx  // runs the statements
	shared  *transaction
	level   *level
	wrapper bool // Tx is a caller's, around a tx of the same outbox
}

// closed tells that the transaction or the savepoint has ended, by itself or with an outer one.
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
	events, unordered, err := s.outbox.newEvents(payloads)
	if err != nil {
		return err
	}
	if s.late {
		if err := s.beEager(ctx); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	had := len(s.pending.events)
	s.add(events, unordered)
	if s.eager {
		if err := s.record(ctx); err != nil {
			s.pending.events = s.pending.events[:had]
			return fmt.Errorf("publish: %w", err)
		}
	}
	return nil
}

// AfterCommit implements rocketflow.Tx.
func (t *tx) AfterCommit(fn func()) {
	s := t.shared
	a, p := afterCommit{fn: fn}, &s.pending
	var err error
	switch {
	case t.closed():
		err = pgx.ErrTxClosed
	case s.eager:
		ctx, cancel := context.WithTimeout(context.Background(), beginTimeout)
		defer cancel()
		a.mark, err = s.mark(ctx)
	}
	if err != nil {
		s.outbox.log.Error("a function of AfterCommit will not be called: register it before the transaction ends", "error", err)
		return
	}
	p.after = append(p.after, a)
	if s.eager {
		p.marked = len(p.after)
	}
}

// Begin starts a savepoint. What is published in it goes with it if it is rolled back.
func (t *tx) Begin(ctx context.Context) (pgx.Tx, error) {
	s := t.shared
	if t.closed() {
		return nil, pgx.ErrTxClosed
	}
	if s.own != nil && !t.wrapper {
		if err := s.own.begin(ctx); err != nil {
			return nil, err
		}
		s.begun++ // as pgx counts, whether it succeeds or not
	}
	if s.late {
		if err := s.beEager(ctx); err != nil {
			return nil, err
		}
	}
	number := s.begun
	inner, err := t.Tx.Begin(ctx)
	if err != nil {
		return nil, err
	}
	if t.wrapper { // the savepoint below it is on the stack already
		return s.view(inner), nil
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
		return s.rollback(ctx)
	case s.gone():
		return pgx.ErrTxClosed
	}
	err := t.Tx.Rollback(ctx)
	if err != nil && !s.gone() {
		// Work and events may have parted: those are here still, these would be gone.
		s.doomed = fmt.Errorf("a savepoint could not be rolled back: %w", err)
	}
	s.undo(t.level)
	return err
}

// Commit implements rocketflow.Tx: it records the events, prepares their half messages if they get any, commits, and
// ends them.
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
		s.runAfter()
	}
	return s.err
}

// Exec implements pgx.Tx.
func (t *tx) Exec(ctx context.Context, sql string, arguments ...any) (pgconn.CommandTag, error) {
	if t.closed() {
		return pgconn.CommandTag{}, pgx.ErrTxClosed
	}
	controlled, err := t.shared.before(ctx, sql)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	tag, err := t.Tx.Exec(ctx, sql, arguments...)
	if controlled && err == nil {
		t.shared.after(sql)
	}
	return tag, err
}

// Query implements pgx.Tx.
func (t *tx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if t.closed() {
		return failed(pgx.ErrTxClosed).Query()
	}
	controlled, err := t.shared.before(ctx, sql)
	if err != nil {
		return failed(err).Query()
	}
	rows, err := t.Tx.Query(ctx, sql, args...)
	if controlled && err == nil {
		t.shared.after(sql) // should it fail later, the transaction can't commit
	}
	return rows, err
}

// QueryRow implements pgx.Tx.
func (t *tx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if t.closed() {
		return failed(pgx.ErrTxClosed).QueryRow()
	}
	controlled, err := t.shared.before(ctx, sql)
	if err != nil {
		return failed(err).QueryRow()
	}
	row := t.Tx.QueryRow(ctx, sql, args...)
	if controlled {
		t.shared.after(sql)
	}
	return row
}

// SendBatch implements pgx.Tx.
func (t *tx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if t.closed() {
		return pgx.FailedBatchResults(b, pgx.ErrTxClosed)
	}
	var controlled []string
	for _, q := range b.QueuedQueries {
		yes, err := t.shared.before(ctx, q.SQL)
		if err != nil {
			return pgx.FailedBatchResults(b, err)
		}
		if yes {
			controlled = append(controlled, q.SQL)
		}
	}
	results := t.Tx.SendBatch(ctx, b)
	for _, sql := range controlled {
		t.shared.after(sql)
	}
	return results
}

// Prepare implements pgx.Tx.
func (t *tx) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	if t.closed() {
		return nil, pgx.ErrTxClosed
	}
	if _, err := t.shared.before(ctx, sql); err != nil { // it is run by its name
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
		return failedLargeObjects(pgx.ErrTxClosed)
	}
	return t.Tx.LargeObjects()
}

// Conn implements pgx.Tx. What is done on the connection is part of the transaction, but not seen here.
func (t *tx) Conn() *pgx.Conn {
	conn := t.Tx.Conn()
	s := t.shared
	if s.own == nil || t.wrapper || t.closed() {
		return conn
	}
	s.handed = conn
	s.outbox.handedOut.put(conn, s)
	if conn.PgConn().IsBusy() {
		s.late = !s.eager
		return conn
	}
	ctx, cancel := context.WithTimeout(context.Background(), beginTimeout)
	defer cancel()
	if err := s.beEager(ctx); err != nil {
		s.doomed = err
	}
	return conn
}

// TxStatus is that of the connection, see pgconn.PgConn, without handing the connection out: memory goes on to know what
// the transaction does.
func (t *tx) TxStatus() byte {
	if own := t.shared.own; own != nil {
		return own.raw.PgConn().TxStatus()
	}
	return t.Tx.Conn().PgConn().TxStatus()
}

// IsClosed tells whether the connection is lost, without handing it out.
func (t *tx) IsClosed() bool {
	if own := t.shared.own; own != nil {
		return own.raw.IsClosed()
	}
	return t.Tx.Conn().IsClosed()
}

// beginTimeout bounds what the interface gives no context for.
const beginTimeout = 10 * time.Second

// commit ends the transaction.
func (s *transaction) commit(ctx context.Context) error {
	defer s.leave()
	switch {
	case s.doomed != nil:
		return errors.Join(s.doomed, s.rollback(ctx))
	case s.opaque:
		return s.commitOpaque(ctx)
	case s.eager || s.late:
		if err := s.settle(ctx); err != nil {
			return errors.Join(err, s.rollback(ctx))
		}
	}
	if len(s.pending.events) == 0 {
		return commitError(s.base.Commit(ctx))
	}
	r := s.outbox.current()
	if r == nil {
		return errors.Join(ErrNotStarted, s.rollback(ctx))
	}
	ticket := r.gears.take(s.pending.events, s.hot())
	defer ticket.close()
	if ticket.half {
		return s.commitBetweenHalves(ctx, r, ticket)
	}
	return s.commitThenRelay(ctx, r)
}

// commitThenRelay is gear B.
func (s *transaction) commitThenRelay(ctx context.Context, r *running) error {
	var err error
	if s.own.plain() || s.pending.recorded > 0 {
		if err = s.record(ctx); err != nil {
			return errors.Join(err, s.rollback(ctx))
		}
		err = s.base.Commit(ctx)
	} else {
		var open bool
		if open, err = s.recordAndCommit(ctx, r); open {
			return errors.Join(err, s.rollback(ctx))
		}
	}
	return s.relay(r, err)
}

// relay has the events of a transaction that has committed sent, unless err says that it hasn't.
func (s *transaction) relay(r *running, err error) error {
	events := s.pending.events
	if err != nil {
		s.outbox.listener.RolledBack(events, !refused(err))
		return commitError(err)
	}
	s.leave()
	s.outbox.listener.Committed(events)
	r.relay.offer(events...)
	return nil
}

// commitBetweenHalves is gear A.
func (s *transaction) commitBetweenHalves(ctx context.Context, r *running, ticket *ticket) error {
	if err := s.record(ctx); err != nil {
		return errors.Join(err, s.rollback(ctx))
	}
	if !ticket.keep(s.contended()) {
		return s.relay(r, s.base.Commit(ctx))
	}
	events := s.pending.events
	begin := time.Now()
	halves, err := s.outbox.prepare(ctx, r, ticket, events)
	s.outbox.hot.travelled(time.Since(begin))
	if err != nil {
		s.outbox.abandon(ctx, r, ticket, halves)
		return errors.Join(err, s.rollback(ctx))
	}
	if err := s.base.Commit(ctx); err != nil {
		unknown := !refused(err)
		if !unknown {
			s.outbox.abandon(ctx, r, ticket, halves)
		}
		s.outbox.listener.RolledBack(events, unknown)
		return commitError(err)
	}
	s.leave()
	s.outbox.listener.Committed(events)
	s.outbox.finish(ctx, r, ticket, halves)
	return nil
}
