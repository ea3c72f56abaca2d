// Package lazytx runs a Postgres transaction in few round trips: BEGIN is sent with the first statement, and COMMIT can be
// sent with the last.
//
//	tx := lazytx.New(conn, pgx.TxOptions{})                        // sends nothing
//	_, err := tx.Exec(ctx, "UPDATE account SET cents = $1", cents) // BEGIN and UPDATE: one round trip
//	open, err := tx.CommitWith(ctx, batch)                         // batch and COMMIT: one round trip
//
// A statement without arguments, a query, a savepoint, a copy and a large object send BEGIN by itself.
package lazytx

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// endTimeout bounds the round trips for which the caller gives no context, or one that has ended.
const endTimeout = 10 * time.Second

// Tx is a transaction on a connection of its own. It implements pgx.Tx, and like a pgx.Tx it is not safe for concurrent
// use. Its end releases the connection.
type Tx struct {
	conn     *pgxpool.Conn // released when ended is set
	raw      *pgx.Conn
	options  pgx.TxOptions
	begun    pgx.Tx // nil until BEGIN has succeeded
	broken   error  // why BEGIN failed; nothing can be run after that
	ended    bool
	separate bool // begun was handed out, so that its own Commit must be called
}

// New returns a transaction with these options on conn, which it owns from then on. It sends nothing: an error of BEGIN is
// returned by the first statement.
func New(conn *pgxpool.Conn, options pgx.TxOptions) *Tx {
	return &Tx{conn: conn, raw: conn.Conn(), options: options}
}

// CommitsSeparately reports whether CommitWith must not be called, because COMMIT can't go with other statements: a
// savepoint or a large object was begun, or the options name a commit statement.
func (t *Tx) CommitsSeparately() bool { return t.separate || t.options.CommitQuery != "" }

// Gone reports whether the transaction ended without Commit or Rollback: with its connection, or by a statement such as
// ROLLBACK. A statement after that would be committed by itself.
func (t *Tx) Gone() bool { return t.begun != nil && t.raw.PgConn().TxStatus() == 'I' }

// TxStatus returns the status of the connection as pgconn.PgConn does. Unlike Conn it doesn't begin the transaction.
func (t *Tx) TxStatus() byte { return t.raw.PgConn().TxStatus() }

// IsClosed reports whether the connection is closed. Unlike Conn it doesn't begin the transaction.
func (t *Tx) IsClosed() bool { return t.raw.IsClosed() }

// EnsureBegun sends BEGIN by itself, unless it was sent.
func (t *Tx) EnsureBegun(ctx context.Context) error {
	switch {
	case t.ended:
		return pgx.ErrTxClosed
	case t.broken != nil:
		return t.broken
	case t.Gone():
		return pgx.ErrTxClosed
	case t.begun != nil:
		return nil
	case ctx.Err() != nil: // nothing was sent, so a later call may succeed
		return ctx.Err()
	}
	begun, err := t.raw.BeginTx(ctx, t.options)
	if err != nil {
		t.broken = fmt.Errorf("begin: %w", err)
		return t.broken
	}
	t.begun = begun
	return nil
}

// beginWith sends BEGIN together with a batch, if the transaction has not begun and they can go together; the next result
// to be read is then that of the batch's first statement. It returns nil otherwise.
func (t *Tx) beginWith(ctx context.Context, queued ...*pgx.QueuedQuery) pgx.BatchResults {
	if t.ended || t.broken != nil || t.begun != nil || t.options.BeginQuery != "" || ctx.Err() != nil {
		return nil
	}
	for _, q := range queued {
		if len(q.Arguments) == 0 {
			continue
		}
		switch q.Arguments[0].(type) {
		case pgx.QueryExecMode, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID: // a batch doesn't take them
			return nil
		}
	}
	b := &pgx.Batch{}
	b.BeginTx(t.options)
	b.QueuedQueries = append(b.QueuedQueries, queued...)
	results := t.raw.SendBatch(ctx, b)
	if _, err := results.Exec(); err != nil {
		_ = results.Close()
		var unsent pgx.ErrPreprocessingBatch
		if errors.As(err, &unsent) && !t.raw.IsClosed() {
			return nil // nothing was run: sent by itself the statement fails where it should, within the transaction
		}
		t.broken = fmt.Errorf("begin: %w", err)
		return results
	}
	t.begun = results.Tx()
	return results
}

// Exec implements pgx.Tx. With arguments, BEGIN goes with it.
func (t *Tx) Exec(ctx context.Context, sql string, arguments ...any) (pgconn.CommandTag, error) {
	// Without arguments it may be several statements, which a batch doesn't take.
	if len(arguments) > 0 {
		if results := t.beginWith(ctx, &pgx.QueuedQuery{SQL: sql, Arguments: arguments}); results != nil {
			tag, err := results.Exec()
			if closeErr := results.Close(); err == nil {
				err = closeErr
			}
			return tag, err
		}
	}
	if err := t.EnsureBegun(ctx); err != nil {
		return pgconn.CommandTag{}, err
	}
	return t.begun.Exec(ctx, sql, arguments...)
}

// QueryRow implements pgx.Tx. BEGIN goes with it.
func (t *Tx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if results := t.beginWith(ctx, &pgx.QueuedQuery{SQL: sql, Arguments: args}); results != nil {
		return batchedRow{results}
	}
	if err := t.EnsureBegun(ctx); err != nil {
		return Failed(err).QueryRow()
	}
	return t.begun.QueryRow(ctx, sql, args...)
}

// batchedRow is the row of a batch's only statement; reading it closes the batch.
type batchedRow struct{ results pgx.BatchResults }

func (r batchedRow) Scan(dest ...any) error {
	if err := r.results.QueryRow().Scan(dest...); err != nil {
		_ = r.results.Close()
		return err
	}
	return r.results.Close()
}

// SendBatch implements pgx.Tx. BEGIN goes with it.
func (t *Tx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	// A batch that begins a transaction itself is left to pgx, which refuses it.
	if n := b.Len(); n > 0 && !strings.HasPrefix(strings.ToLower(b.QueuedQueries[0].SQL), "begin") {
		if results := t.beginWith(ctx, b.QueuedQueries...); results != nil {
			return results
		}
	}
	if err := t.EnsureBegun(ctx); err != nil {
		return pgx.FailedBatchResults(b, err)
	}
	return t.begun.SendBatch(ctx, b)
}

// Query implements pgx.Tx.
func (t *Tx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := t.EnsureBegun(ctx); err != nil {
		return Failed(err).Query()
	}
	return t.begun.Query(ctx, sql, args...)
}

// CopyFrom implements pgx.Tx.
func (t *Tx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error) {
	if err := t.EnsureBegun(ctx); err != nil {
		return 0, err
	}
	return t.begun.CopyFrom(ctx, table, columns, rows)
}

// Prepare implements pgx.Tx.
func (t *Tx) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	if err := t.EnsureBegun(ctx); err != nil {
		return nil, err
	}
	return t.begun.Prepare(ctx, name, sql)
}

// Begin implements pgx.Tx: it begins a savepoint. COMMIT goes by itself from then on.
func (t *Tx) Begin(ctx context.Context) (pgx.Tx, error) {
	if err := t.EnsureBegun(ctx); err != nil {
		return nil, err
	}
	t.separate = true
	return t.begun.Begin(ctx)
}

// LargeObjects implements pgx.Tx. COMMIT goes by itself from then on.
func (t *Tx) LargeObjects() pgx.LargeObjects {
	t.separate = true
	if err := t.ensureBegunNow(); err != nil {
		return FailedLargeObjects(err)
	}
	return t.begun.LargeObjects()
}

// Conn implements pgx.Tx. It begins the transaction, because statements on the connection must be part of it. If BEGIN fails,
// the connection is closed.
func (t *Tx) Conn() *pgx.Conn {
	if !t.ended && t.ensureBegunNow() != nil {
		ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
		defer cancel()
		_ = t.raw.Close(ctx)
	}
	return t.raw
}

func (t *Tx) ensureBegunNow() error {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	return t.EnsureBegun(ctx)
}

// Commit implements pgx.Tx. NotCommitted reports whether an error means that Postgres did not commit.
func (t *Tx) Commit(ctx context.Context) error {
	if t.ended {
		return pgx.ErrTxClosed
	}
	defer t.end()
	switch {
	case t.broken != nil:
		return unsentError{t.broken}
	case t.Gone():
		return errors.Join(pgx.ErrTxClosed, t.begun.Rollback(ctx)) // pgx closes the connection if it is of no use
	case ctx.Err() != nil:
		return unsentError{errors.Join(ctx.Err(), t.abort(ctx))}
	case t.begun == nil:
		return nil // nothing was run
	case t.raw.IsClosed():
		return unsentError{errors.Join(errConnClosed, t.abort(ctx))}
	}
	return t.begun.Commit(ctx)
}

var errConnClosed = errors.New("the connection was closed before the commit")

// unsentError means that COMMIT was not sent, and why. (pgconn.SafeToRetry is no substitute: it is also true for a connection
// that was lost after COMMIT.)
type unsentError struct{ error }

func (e unsentError) Unwrap() error { return e.error }

// NotCommitted reports whether an error of COMMIT proves that Postgres did not commit. If it returns false for an error, the
// outcome is unknown. A FATAL error proves nothing: Postgres may have been shut down while it waited for a replica, with the
// commit already on its disk.
func NotCommitted(err error) bool {
	var unsent unsentError
	if errors.Is(err, pgx.ErrTxCommitRollback) || errors.Is(err, pgx.ErrTxClosed) || errors.As(err, &unsent) {
		return true
	}
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.SeverityUnlocalized == "ERROR"
}

// abort rolls the transaction back, also when ctx has ended.
func (t *Tx) abort(ctx context.Context) error {
	if t.begun == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	return t.begun.Rollback(ctx)
}

// Rollback implements pgx.Tx.
func (t *Tx) Rollback(ctx context.Context) error {
	if t.ended {
		return pgx.ErrTxClosed
	}
	defer t.end()
	if t.begun == nil {
		return nil
	}
	return t.begun.Rollback(ctx)
}

func (t *Tx) end() {
	t.ended = true
	t.conn.Release() // the pool closes the connection if a transaction is left on it
}

// CommitWith runs the queued statements and commits, in one round trip. Postgres skips what follows a statement that fails.
// After an error, if open is true, COMMIT was not run and the caller must call Rollback; otherwise the transaction has ended,
// and NotCommitted reports whether it is known that Postgres did not commit.
func (t *Tx) CommitWith(ctx context.Context, queued *pgx.Batch) (open bool, err error) {
	switch {
	case t.ended:
		return false, pgx.ErrTxClosed
	case t.broken != nil:
		return true, t.broken
	case ctx.Err() != nil:
		return true, ctx.Err()
	case t.Gone():
		return true, pgx.ErrTxClosed
	case t.raw.IsClosed():
		return true, errConnClosed
	}
	if t.begun == nil && t.options.BeginQuery != "" {
		if err := t.EnsureBegun(ctx); err != nil {
			return true, err
		}
	}
	return t.sendWithCommit(ctx, queued).end()
}

// sentCommit is a batch that ends with COMMIT.
type sentCommit struct {
	tx      *Tx
	results pgx.BatchResults
	tag     string // of COMMIT
}

// sendWithCommit sends the queued statements and COMMIT, and BEGIN before them unless it was sent.
func (t *Tx) sendWithCommit(ctx context.Context, queued *pgx.Batch) *sentCommit {
	s := &sentCommit{tx: t}
	b := &pgx.Batch{}
	if t.begun == nil {
		b.BeginTx(t.options)
	}
	b.QueuedQueries = append(b.QueuedQueries, queued.QueuedQueries...)
	b.Queue("commit").Exec(func(tag pgconn.CommandTag) error { s.tag = tag.String(); return nil })
	s.results = t.raw.SendBatch(ctx, b)
	return s
}

// end reads the results that are left. It returns what CommitWith returns.
func (s *sentCommit) end() (open bool, err error) {
	t := s.tx
	err = s.results.Close()
	pg := t.raw.PgConn()
	known := !pg.IsClosed() && !pg.IsBusy()
	switch status := pg.TxStatus(); {
	case err == nil && s.tag == "ROLLBACK":
		err = pgx.ErrTxCommitRollback
	case err == nil && s.tag != "COMMIT":
		err = fmt.Errorf("commit returned the tag %q", s.tag)
	case unsent(err) && !pg.IsClosed() || known && status != 'I':
		if t.begun == nil && known && status != 'I' {
			t.begun = s.results.Tx()
		}
		return true, err
	}
	t.end()
	return false, err
}

// unsent reports whether err proves that no statement was sent.
func unsent(err error) bool {
	if err == nil {
		return false
	}
	var preprocessing pgx.ErrPreprocessingBatch
	return errors.As(err, &preprocessing) || pgconn.SafeToRetry(err)
}

// Failed returns results whose methods all return err.
func Failed(err error) pgx.BatchResults { return pgx.FailedBatchResults(&pgx.Batch{}, err) }

// FailedLargeObjects returns large objects whose methods all return err.
func FailedLargeObjects(err error) pgx.LargeObjects {
	b := &pgx.Batch{}
	b.BeginTx(pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	return pgx.FailedBatchResults(b, err).Tx().LargeObjects()
}
