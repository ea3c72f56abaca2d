// Package inspect reads what rocketflow's tables know of an event, a stream, the backlog and timeouts, for people and
// for the tools that they use. It never writes and never waits for a lock; every query is bounded and can be answered by
// an index, so it is safe on a database under load.
package inspect

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/internal/queries"
)

//go:embed queries.sql
var queriesFile string

const (
	// MaxCount is where counting ends: a count of MaxCount means as many or more.
	MaxCount = 100_000
	// maxRows bounds lists that grow with the number of consumers and topics, which are few.
	maxRows = 1000
	// queryTimeout ends a statement that takes unexpectedly long: an old snapshot holds up vacuum and the sweep.
	queryTimeout = "10s"
)

// Reader reads one state of the database. It is valid within the call of Read that made it.
type Reader struct {
	Now time.Time // the database's clock at this state

	tx  pgx.Tx
	sql queries.Set
}

// Read calls fn with a Reader of the tables in schema.
func Read(ctx context.Context, pool *pgxpool.Pool, schema string, fn func(*Reader) error) error {
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	return pgx.BeginTxFunc(ctx, pool, options, func(tx pgx.Tx) error {
		r := &Reader{tx: tx, sql: queries.Parse(queriesFile, schema)}
		if _, err := tx.Exec(ctx, "SET LOCAL statement_timeout = '"+queryTimeout+"'"); err != nil {
			return fmt.Errorf("set statement_timeout: %w", err)
		}
		if err := tx.QueryRow(ctx, "SELECT now()").Scan(&r.Now); err != nil {
			return fmt.Errorf("read clock: %w", err)
		}
		return fn(r)
	})
}

// Query runs a query on the state that r reads.
func (r *Reader) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return r.tx.Query(ctx, sql, args...)
}

// Schemas returns the first few schemas of the database that hold rocketflow's tables, up to limit.
func Schemas(ctx context.Context, pool *pgxpool.Pool, limit int) ([]string, error) {
	rows, err := pool.Query(ctx, queries.Parse(queriesFile, "").Get("Schemas"), limit)
	if err != nil {
		return nil, fmt.Errorf("list schemas: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list schemas: %w", err)
	}
	return list, nil
}

// collect runs a query of the file and scans each row with scan.
func collect[T any](ctx context.Context, r *Reader, query string, scan func(pgx.CollectableRow, *T) error, args ...any) ([]T, error) {
	rows, err := r.tx.Query(ctx, r.sql.Get(query), args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (v T, err error) {
		err = scan(row, &v)
		return v, err
	})
}

// orZero is the zero time for null.
func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}
