package lazytx

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/pgerror"
)

// ReadCommitted are the options of rocketflow's own transactions. With the zero options a transaction has the isolation level
// that the database, the role or the connection sets as the default. Above read committed it would fail because another
// transaction changed the same row, and at serializable it could make the application's transactions fail.
var ReadCommitted = pgx.TxOptions{IsoLevel: pgx.ReadCommitted}

// DB runs rocketflow's own statements, each in a transaction of its own at read committed. A statement outside of a
// transaction would have the default isolation level. BEGIN and COMMIT go with the statement, so that it takes one round trip.
// Exec and QueryRow run it again after a conflict, see Retry. All methods are safe for concurrent use.
type DB struct{ pool *pgxpool.Pool }

// On returns a DB that takes its connections from pool.
func On(pool *pgxpool.Pool) DB { return DB{pool} }

// maxConflicts is how often Retry calls a function again.
const maxConflicts = 3

// Retry calls fn, which runs one transaction, and calls it again at once, a few times, if Postgres rolled the transaction back
// because of a conflict with another one. At read committed that is a deadlock, a lock that was not available in time, or a row
// that was moved to another partition. fn must set its results anew.
func Retry(ctx context.Context, fn func() error) error {
	for try := 0; ; try++ {
		err := fn()
		if err == nil || try == maxConflicts || !pgerror.IsConflict(err) || !NotCommitted(err) || ctx.Err() != nil {
			return err
		}
	}
}

// Within runs fn in a transaction of transactor: at read committed if it has a method WithinTx, as *outbox.Outbox has.
func Within(ctx context.Context, transactor rocketflow.Transactor, fn func(ctx context.Context, tx rocketflow.Tx) error) error {
	t, ok := transactor.(interface {
		WithinTx(ctx context.Context, options pgx.TxOptions, fn func(ctx context.Context, tx rocketflow.Tx) error) error
	})
	if ok {
		return t.WithinTx(ctx, ReadCommitted, fn)
	}
	return transactor.Within(ctx, fn)
}

// InTx runs fn in a transaction of its own on pool that takes writes, at read committed, whatever the database's defaults are: at this
// isolation level a row that another transaction changes at the same time is no error. It commits if fn returns nil, and rolls back
// otherwise.
func InTx(ctx context.Context, pool *pgxpool.Pool, fn func(tx pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite}, fn)
}

// Exec runs a statement. An error doesn't always mean that it took no effect, see NotCommitted.
func (d DB) Exec(ctx context.Context, sql string, args ...any) (tag pgconn.CommandTag, err error) {
	err = d.run(ctx, sql, args, func(q *pgx.QueuedQuery) {
		q.Exec(func(t pgconn.CommandTag) error { tag = t; return nil })
	})
	return tag, err
}

// QueryRow returns the first row of a query. The query is sent by the row's Scan.
func (d DB) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return row{func(dest []any) error {
		return d.run(ctx, sql, args, func(q *pgx.QueuedQuery) {
			q.QueryRow(func(r pgx.Row) error { return r.Scan(dest...) })
		})
	}}
}

type row struct{ scan func(dest []any) error }

func (r row) Scan(dest ...any) error { return r.scan(dest) }

// run runs a statement whose result is read by what read registers.
func (d DB) run(ctx context.Context, sql string, args []any, read func(*pgx.QueuedQuery)) error {
	return Retry(ctx, func() error {
		b := &pgx.Batch{}
		read(b.Queue(sql, args...))
		return d.SendBatch(ctx, b).Close()
	})
}

// Query runs a query. Its rows must be closed, or read to the end.
func (d DB) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	b := &pgx.Batch{}
	b.Queue(sql, args...)
	results := d.SendBatch(ctx, b)
	inner, err := results.Query()
	r := &rows{Rows: inner, results: results}
	if err != nil {
		r.Close()
	}
	return r, r.Err()
}

// rows are the rows of a batch's only statement; reading them closes the batch.
type rows struct {
	pgx.Rows
	results pgx.BatchResults
	err     error // of the batch
}

func (r *rows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	r.Close()
	return false
}

func (r *rows) Close() {
	r.Rows.Close()
	r.err = r.results.Close()
}

func (r *rows) Err() error {
	if err := r.Rows.Err(); err != nil {
		return err
	}
	return r.err
}

// SendBatch runs statements in one transaction. It is committed when the returned results are closed without an error; their
// Tx returns nil.
func (d DB) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return pgx.FailedBatchResults(b, err)
	}
	t := New(conn, ReadCommitted)
	s := t.sendWithCommit(ctx, b)
	_, _ = s.results.Exec() // of BEGIN; if it failed, what follows fails
	return &results{BatchResults: s.results, ctx: ctx, sent: s}
}

// results are those of a batch that ends its transaction.
type results struct {
	pgx.BatchResults
	ctx    context.Context //nolint:containedctx // as pgx's own results do
	sent   *sentCommit
	closed bool
	err    error
}

func (r *results) Close() error {
	if r.closed {
		return r.err
	}
	r.closed = true
	var open bool
	if open, r.err = r.sent.end(); open {
		_ = r.sent.tx.abort(r.ctx) // the pool closes the connection if that fails
		r.sent.tx.end()
	}
	return r.err
}

func (r *results) Tx() pgx.Tx { return nil }
