package handlers

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rocketflow/rocketflow"
)

// handlerTx is the transaction that a handler gets. It prevents the handler from ending the transaction, to which the record
// that the event was handled belongs, and from using it after the router has abandoned the handler.
type handlerTx struct {
	tx rocketflow.Tx

	mu     sync.RWMutex // held for reading during a statement
	closed bool
}

// connection is implemented by transactions of the outbox and reports the state of their connection. Calling Conn instead
// would make the outbox insert the row of each event at once, because it can't see the statements on the connection.
type connection interface {
	TxStatus() byte
	IsClosed() bool
}

func status(tx pgx.Tx) byte {
	if c, ok := tx.(connection); ok {
		return c.TxStatus()
	}
	return tx.Conn().PgConn().TxStatus()
}

func isClosed(tx pgx.Tx) bool {
	if c, ok := tx.(connection); ok {
		return c.IsClosed()
	}
	return tx.Conn().IsClosed()
}

func newHandlerTx(tx rocketflow.Tx) *handlerTx { return &handlerTx{tx: tx} }

// abandon closes the transaction for its handler. The connection of a running statement is closed.
func (t *handlerTx) abandon() {
	if !t.mu.TryLock() {
		_ = t.tx.Conn().PgConn().Conn().Close()
		t.mu.Lock()
	}
	t.closed = true
	t.mu.Unlock()
}

func (t *handlerTx) enter() (leave func(), err error) {
	t.mu.RLock()
	if t.closed {
		t.mu.RUnlock()
		return nil, pgx.ErrTxClosed
	}
	return t.mu.RUnlock, nil
}

// Commit implements pgx.Tx.
func (t *handlerTx) Commit(context.Context) error { return errEnds }

// Rollback implements pgx.Tx.
func (t *handlerTx) Rollback(context.Context) error { return errEnds }

// Begin implements pgx.Tx.
func (t *handlerTx) Begin(ctx context.Context) (pgx.Tx, error) {
	leave, err := t.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	return t.tx.Begin(ctx)
}

// Exec implements pgx.Tx.
func (t *handlerTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	leave, err := t.enter()
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	defer leave()
	return t.tx.Exec(ctx, sql, args...)
}

// Query implements pgx.Tx.
func (t *handlerTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	leave, err := t.enter()
	if err != nil {
		return failedBatch(err).Query() //nolint:sqlclosecheck // the caller's
	}
	defer leave()
	return t.tx.Query(ctx, sql, args...) //nolint:sqlclosecheck // the caller's
}

// QueryRow implements pgx.Tx.
func (t *handlerTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	leave, err := t.enter()
	if err != nil {
		return failedBatch(err).QueryRow()
	}
	defer leave()
	return t.tx.QueryRow(ctx, sql, args...)
}

// SendBatch implements pgx.Tx.
func (t *handlerTx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	leave, err := t.enter()
	if err != nil {
		return pgx.FailedBatchResults(b, err)
	}
	defer leave()
	return t.tx.SendBatch(ctx, b)
}

// CopyFrom implements pgx.Tx.
func (t *handlerTx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error) {
	leave, err := t.enter()
	if err != nil {
		return 0, err
	}
	defer leave()
	return t.tx.CopyFrom(ctx, table, columns, rows)
}

// Prepare implements pgx.Tx.
func (t *handlerTx) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	leave, err := t.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	return t.tx.Prepare(ctx, name, sql)
}

// LargeObjects implements pgx.Tx.
func (t *handlerTx) LargeObjects() pgx.LargeObjects { return t.tx.LargeObjects() }

// Conn implements pgx.Tx.
func (t *handlerTx) Conn() *pgx.Conn { return t.tx.Conn() }

// Publish implements rocketflow.Tx.
func (t *handlerTx) Publish(ctx context.Context, events ...rocketflow.Payload) error {
	leave, err := t.enter()
	if err != nil {
		return err
	}
	defer leave()
	return t.tx.Publish(ctx, events...)
}

// AfterCommit implements rocketflow.Tx.
func (t *handlerTx) AfterCommit(fn func()) {
	if leave, err := t.enter(); err == nil {
		defer leave()
		t.tx.AfterCommit(fn)
	}
}

// Unwrap returns the router's transaction, for the outbox, which joins it.
func (t *handlerTx) Unwrap() pgx.Tx { return t.tx }

// failedBatch returns results that are all err.
func failedBatch(err error) pgx.BatchResults { return pgx.FailedBatchResults(&pgx.Batch{}, err) }
