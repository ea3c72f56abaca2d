package outbox

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// lazyTx is a transaction on a connection of its own whose BEGIN goes in one round trip with its first statement, and
// whose COMMIT may go with its last.
type lazyTx struct {
	conn    *pgxpool.Conn // until it has ended
	raw     *pgx.Conn
	options pgx.TxOptions
	inner   pgx.Tx // nil until it has begun
	broken  error  // why it never will
	ended   bool   // and conn is released
	leaked  bool   // inner was handed out in a way that would outlive commitWith
}

func newLazyTx(conn *pgxpool.Conn, options pgx.TxOptions) *lazyTx {
	return &lazyTx{conn: conn, raw: conn.Conn(), options: options}
}

// plain tells that COMMIT must go by itself.
func (t *lazyTx) plain() bool { return t.leaked || t.options.CommitQuery != "" }

// gone tells that the transaction was lost with the connection, or ended by a statement: what is done now would be
// committed by itself.
func (t *lazyTx) gone() bool { return t.inner != nil && t.raw.PgConn().TxStatus() == 'I' }

// begin begins the transaction by itself.
func (t *lazyTx) begin(ctx context.Context) error {
	switch {
	case t.ended:
		return pgx.ErrTxClosed
	case t.broken != nil:
		return t.broken
	case t.gone():
		return pgx.ErrTxClosed
	case t.inner != nil:
		return nil
	case ctx.Err() != nil: // nothing is broken yet
		return ctx.Err()
	}
	inner, err := t.raw.BeginTx(ctx, t.options)
	if err != nil {
		t.broken = fmt.Errorf("begin: %w", err)
		return t.broken
	}
	t.inner = inner
	return nil
}

// with sends BEGIN together with a batch, if the transaction has not begun and they can go together; the next result to
// be read is then that of the batch's first statement. It returns nil otherwise.
func (t *lazyTx) with(ctx context.Context, queued ...*pgx.QueuedQuery) pgx.BatchResults {
	if t.ended || t.broken != nil || t.inner != nil || t.options.BeginQuery != "" || ctx.Err() != nil {
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
			return nil // nothing was run: by itself the statement fails where it should, within the transaction
		}
		t.broken = fmt.Errorf("begin: %w", err)
		return results
	}
	t.inner = results.Tx()
	return results
}

func (t *lazyTx) Exec(ctx context.Context, sql string, arguments ...any) (pgconn.CommandTag, error) {
	// Without arguments it may be several statements, which a batch doesn't take.
	if len(arguments) > 0 {
		if results := t.with(ctx, &pgx.QueuedQuery{SQL: sql, Arguments: arguments}); results != nil {
			tag, err := results.Exec()
			if closeErr := results.Close(); err == nil {
				err = closeErr
			}
			return tag, err
		}
	}
	if err := t.begin(ctx); err != nil {
		return pgconn.CommandTag{}, err
	}
	return t.inner.Exec(ctx, sql, arguments...)
}

func (t *lazyTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if results := t.with(ctx, &pgx.QueuedQuery{SQL: sql, Arguments: args}); results != nil {
		return batchedRow{results}
	}
	if err := t.begin(ctx); err != nil {
		return failed(err).QueryRow()
	}
	return t.inner.QueryRow(ctx, sql, args...)
}

type batchedRow struct{ results pgx.BatchResults }

func (r batchedRow) Scan(dest ...any) error {
	if err := r.results.QueryRow().Scan(dest...); err != nil {
		_ = r.results.Close()
		return err
	}
	return r.results.Close()
}

// failed answers everything with err.
func failed(err error) pgx.BatchResults { return pgx.FailedBatchResults(&pgx.Batch{}, err) }

func (t *lazyTx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	// One that begins a transaction itself is for inner to refuse.
	if n := b.Len(); n > 0 && !strings.HasPrefix(strings.ToLower(b.QueuedQueries[0].SQL), "begin") {
		if results := t.with(ctx, b.QueuedQueries...); results != nil {
			return results
		}
	}
	if err := t.begin(ctx); err != nil {
		return pgx.FailedBatchResults(b, err)
	}
	return t.inner.SendBatch(ctx, b)
}

func (t *lazyTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := t.begin(ctx); err != nil {
		return failed(err).Query()
	}
	return t.inner.Query(ctx, sql, args...)
}

func (t *lazyTx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error) {
	if err := t.begin(ctx); err != nil {
		return 0, err
	}
	return t.inner.CopyFrom(ctx, table, columns, rows)
}

func (t *lazyTx) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	if err := t.begin(ctx); err != nil {
		return nil, err
	}
	return t.inner.Prepare(ctx, name, sql)
}

// Begin implements pgx.Tx. Savepoints hold on to inner.
func (t *lazyTx) Begin(ctx context.Context) (pgx.Tx, error) {
	if err := t.begin(ctx); err != nil {
		return nil, err
	}
	t.leaked = true
	return t.inner.Begin(ctx)
}

// LargeObjects implements pgx.Tx.
func (t *lazyTx) LargeObjects() pgx.LargeObjects {
	t.leaked = true
	if err := t.beginNow(); err != nil {
		return failedLargeObjects(err)
	}
	return t.inner.LargeObjects()
}

// failedLargeObjects answers everything with err.
func failedLargeObjects(err error) pgx.LargeObjects {
	b := &pgx.Batch{}
	b.BeginTx(pgx.TxOptions{})
	return pgx.FailedBatchResults(b, err).Tx().LargeObjects()
}

// Conn begins the transaction, as what is done on the connection must be part of it. If that fails, the connection is
// closed.
func (t *lazyTx) Conn() *pgx.Conn {
	if !t.ended && t.beginNow() != nil {
		ctx, cancel := context.WithTimeout(context.Background(), beginTimeout)
		defer cancel()
		_ = t.raw.Close(ctx)
	}
	return t.raw
}

func (t *lazyTx) beginNow() error {
	ctx, cancel := context.WithTimeout(context.Background(), beginTimeout)
	defer cancel()
	return t.begin(ctx)
}

func (t *lazyTx) Commit(ctx context.Context) error {
	if t.ended {
		return pgx.ErrTxClosed
	}
	defer t.end()
	switch {
	case t.broken != nil:
		return uncommittedError{t.broken}
	case t.gone():
		return errors.Join(pgx.ErrTxClosed, t.inner.Rollback(ctx)) // which closes a connection that is no good
	case ctx.Err() != nil:
		return uncommittedError{errors.Join(ctx.Err(), t.abort(ctx))}
	case t.inner == nil:
		return nil // nothing was done
	case t.raw.IsClosed():
		return uncommittedError{errors.Join(errConnClosed, t.abort(ctx))}
	}
	return t.inner.Commit(ctx)
}

var errConnClosed = errors.New("the connection was closed before the commit")

// uncommittedError is why no COMMIT was sent. (What pgconn.SafeToRetry says of an error proves nothing: of a connection that
// was lost behind COMMIT it is true as well.)
type uncommittedError struct{ error }

func (e uncommittedError) Unwrap() error { return e.error }

// abort rolls back what has begun.
func (t *lazyTx) abort(ctx context.Context) error {
	if t.inner == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), beginTimeout)
	defer cancel()
	return t.inner.Rollback(ctx)
}

func (t *lazyTx) Rollback(ctx context.Context) error {
	if t.ended {
		return pgx.ErrTxClosed
	}
	defer t.end()
	if t.inner == nil {
		return nil
	}
	return t.inner.Rollback(ctx)
}

func (t *lazyTx) end() {
	t.ended = true
	t.conn.Release() // closes it, should a transaction be left on it
}

// commitWith runs what is queued and commits, in one round trip. Postgres skips what follows a statement that fails, so
// an error is one of three: open, and then it is known that COMMIT was not run; what refused tells; or nobody knows.
func (t *lazyTx) commitWith(ctx context.Context, queued *pgx.Batch) (open bool, err error) {
	switch {
	case t.ended:
		return false, pgx.ErrTxClosed
	case t.broken != nil:
		return true, t.broken
	case ctx.Err() != nil:
		return true, ctx.Err()
	case t.gone():
		return true, pgx.ErrTxClosed
	case t.raw.IsClosed():
		return true, errConnClosed
	}
	if t.inner == nil && t.options.BeginQuery != "" {
		if err := t.begin(ctx); err != nil {
			return true, err
		}
	}
	b := &pgx.Batch{}
	if t.inner == nil {
		b.BeginTx(t.options)
	}
	b.QueuedQueries = append(b.QueuedQueries, queued.QueuedQueries...)
	var tag string
	b.Queue("commit").Exec(func(t pgconn.CommandTag) error { tag = t.String(); return nil })
	results := t.raw.SendBatch(ctx, b)
	err = results.Close()
	pg := t.raw.PgConn()
	known := !pg.IsClosed() && !pg.IsBusy()
	switch status := pg.TxStatus(); {
	case err == nil && tag == "ROLLBACK":
		err = pgx.ErrTxCommitRollback
	case err == nil && tag != "COMMIT":
		err = fmt.Errorf("commit answered with %q", tag)
	case unsent(err) && !pg.IsClosed() || known && status != 'I':
		if t.inner == nil && known && status != 'I' {
			t.inner = results.Tx()
		}
		return true, err
	}
	t.end()
	return false, err
}

// unsent tells that no statement was sent.
func unsent(err error) bool {
	if err == nil {
		return false
	}
	var preprocessing pgx.ErrPreprocessingBatch
	return errors.As(err, &preprocessing) || pgconn.SafeToRetry(err)
}
