package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/lazytx"
)

// SQL is a transaction of database/sql, opened by package stdlib of pgx, on the database of Config.Pool. *sql.Tx and
// *sqlx.Tx implement it; with GORM, Statement.ConnPool of a transaction holds one.
type SQL interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	Commit() error
}

// JoinSQL returns an SQLTx that publishes in a transaction of database/sql, as Join does with one of pgx: each Publish
// inserts its rows at once, and events are sent whose rows are found committed. Commit the returned SQLTx instead of tx, or
// call Committed after the commit; otherwise the sweep sends the events some seconds after it.
//
//	tx, err := db.BeginTx(ctx, nil) // of database/sql, or db.BeginTxx of sqlx
//	...
//	joined := box.JoinSQL(tx)
//	err = joined.Publish(ctx, OrderPlaced{...})
//	...
//	err = joined.Commit(ctx)
//
// With GORM:
//
//	var joined *outbox.SQLTx
//	err := db.Transaction(func(tx *gorm.DB) error {
//		joined = box.JoinSQL(tx.Statement.ConnPool.(outbox.SQL))
//		return joined.Publish(ctx, OrderPlaced{...})
//	})
//	if err == nil {
//		joined.Committed(ctx)
//	}
func (o *Outbox) JoinSQL(tx SQL) *SQLTx {
	return &SQLTx{tx: tx, publication: publication{outbox: o, rows: sqlRows{tx}}}
}

// SQLTx publishes in a transaction of database/sql. It is not safe for concurrent use.
type SQLTx struct {
	tx          SQL
	publication publication
	ended       bool
}

// Publish records events that become visible if and only if the transaction commits, as rocketflow.Tx does. After the end
// of the transaction it returns sql.ErrTxDone.
func (t *SQLTx) Publish(ctx context.Context, payloads ...rocketflow.Payload) error {
	if t.ended {
		return fmt.Errorf("publish: %w", sql.ErrTxDone)
	}
	p := &t.publication
	if err := p.outbox.admit(); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	events, unordered, err := p.outbox.newEvents(ctx, payloads)
	if err != nil {
		return err
	}
	before := len(p.events)
	p.add(ctx, events, unordered)
	if err := p.record(ctx); err != nil {
		p.truncate(before, before)
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// sqlRows is the rowSource of a transaction of database/sql.
type sqlRows struct{ tx SQL }

func (s sqlRows) read(ctx context.Context, sql string, args []any, fn func(resultRows) error) (err error) {
	rows, err := s.tx.QueryContext(ctx, sql, args...) //nolint:rowserrcheck // fn does
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	return fn(rows)
}

// Commit commits the transaction and sends its events. nil means that it is committed. An error that matches
// rocketflow.ErrCommitUnknown means that the outcome is unknown; after any other error it is not committed, see rocketflow.Tx.
func (t *SQLTx) Commit(ctx context.Context) error {
	if t.ended {
		return sql.ErrTxDone
	}
	err := t.tx.Commit()
	if err == nil {
		t.Committed(ctx)
		return nil
	}
	t.ended = true
	if lazytx.NotCommitted(err) || errors.Is(err, sql.ErrTxDone) {
		t.publication.abandon(ctx)
		return err
	}
	t.publication.unknown()
	return commitError(err)
}

// Committed sends the events whose rows are found committed. Call it after the transaction's owner has committed it in
// another way than by Commit. If the transaction is not committed, Committed does nothing.
func (t *SQLTx) Committed(ctx context.Context) {
	t.ended = true
	p := &t.publication
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.outbox.config.EndTimeout)
	defer cancel()
	p.finishVisible(ctx)
	p.events, p.recorded = nil, 0
}
