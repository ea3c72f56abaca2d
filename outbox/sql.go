package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
)

// SQL is a transaction of database/sql, over package stdlib of pgx, on the database of Config.Pool. *sql.Tx is one, and
// *sqlx.Tx; of a transaction of GORM it is what Statement.ConnPool holds.
type SQL interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	Commit() error
}

// JoinSQL makes a transaction of database/sql publish, as Join does with one of pgx: each Publish writes its rows at once,
// and the rows decide what goes out. Commit the returned SQLTx instead of tx, or tell it by Committed; otherwise the sweep
// sends its events, some seconds after the commit.
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
func (o *Outbox) JoinSQL(tx SQL) *SQLTx { return &SQLTx{outbox: o, tx: tx} }

// SQLTx publishes in a transaction of database/sql. It is not safe for concurrent use.
type SQLTx struct {
	outbox *Outbox
	tx     SQL
	events []rocketflow.Event
	ended  bool
}

// Publish records events that become visible if and only if the transaction commits, as rocketflow.Tx does. After the end
// of the transaction it returns sql.ErrTxDone.
func (t *SQLTx) Publish(ctx context.Context, payloads ...rocketflow.Payload) error {
	if t.ended {
		return fmt.Errorf("publish: %w", sql.ErrTxDone)
	}
	if err := t.outbox.admit(); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	events, unordered, err := t.outbox.newEvents(payloads)
	if err != nil || len(events) == 0 {
		return err
	}
	r := t.outbox.current()
	if r == nil {
		return fmt.Errorf("publish: %w", ErrNotStarted)
	}
	ids := map[uuid.UUID]bool{}
	for i, e := range events {
		if unordered[i] {
			ids[e.ID] = true
		}
	}
	statement, args, err := t.outbox.rows(events, ids)
	if err == nil {
		err = t.insert(ctx, statement, args, events)
	}
	if err != nil {
		return fmt.Errorf("publish: record events: %w", err)
	}
	for i := range events {
		events[i].Database = r.database
	}
	t.events = append(t.events, events...)
	t.outbox.listener.Recorded(events)
	return nil
}

func (t *SQLTx) insert(ctx context.Context, statement string, args []any, events []rocketflow.Event) (err error) {
	rows, err := t.tx.QueryContext(ctx, statement, args...) //nolint:rowserrcheck // complete does
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	return complete(rows, events)
}

// Commit commits the transaction and sends its events. An error that matches rocketflow.ErrCommitUnknown means that nobody
// knows whether it is committed, any other that it isn't; once it is, Commit returns nil.
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
	known := refused(err) || errors.Is(err, sql.ErrTxDone)
	if len(t.events) > 0 {
		t.outbox.listener.RolledBack(t.events, !known)
	}
	if known {
		return err
	}
	return commitError(err)
}

// Committed has the events sent at once whose rows are committed, after whoever owns the transaction has committed it. It
// does no harm if it is not.
func (t *SQLTx) Committed(ctx context.Context) {
	t.ended = true
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.outbox.config.EndTimeout)
	defer cancel()
	t.outbox.announce(ctx, t.events)
	t.events = nil
}
