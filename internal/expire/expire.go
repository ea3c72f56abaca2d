// Package expire deletes old rows of tables that have no index by age, because keeping one would cost every writer: it
// walks through the table, some blocks at a time, each in a short transaction of its own.
package expire

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// blocks is how much of a table a transaction reads: 256 kB, some thousand rows.
const blocks = 32

// Walk runs a statement on each part of a table, from its beginning to the end that it had at the call, and returns how
// many rows it affected. The statement confines itself to rows whose ctid is at least $1 and below $2; args are $3 and so
// on. It ends early with ctx.
func Walk(ctx context.Context, pool *pgxpool.Pool, schema, table, statement string, args ...any) (rows int64, err error) {
	var end int64
	size := "SELECT pg_catalog.pg_relation_size($1::text::regclass) / pg_catalog.current_setting('block_size')::bigint"
	if err := pool.QueryRow(ctx, size, pgx.Identifier{schema, table}.Sanitize()).Scan(&end); err != nil {
		return 0, fmt.Errorf("expire rows of %s: %w", table, err)
	}
	for from := int64(0); from < end; from += blocks {
		bounds := []any{tid(from), tid(from + blocks)}
		// At read committed, as a row that a publishing transaction moves on meanwhile is stepped over and no error.
		var gone int64
		err := pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite}, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, statement, append(bounds, args...)...)
			gone = tag.RowsAffected()
			return err
		})
		if err != nil {
			return rows, fmt.Errorf("expire rows of %s: %w", table, err)
		}
		rows += gone
	}
	return rows, nil
}

func tid(block int64) string { return fmt.Sprintf("(%d,0)", block) }
