// Package expire deletes old rows of tables that have no index by age, as maintaining one would cost every writer. It reads
// the whole table, some blocks at a time, each in a short transaction.
//
//	rows, err := expire.Walk(ctx, pool, schema, "stream",
//		"DELETE FROM stream WHERE ctid >= $1::tid AND ctid < $2::tid AND ended_at < $3", before)
package expire

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/internal/lazytx"
)

// blocks is how many blocks of a table one transaction reads: 256 kB, some thousand rows.
const blocks = 32

// Walk runs a statement for each part of a table, from its beginning to the end that it has at the call, and returns how many
// rows were affected. The statement must be limited to rows whose ctid is at least $1 and below $2; args are its parameters
// from $3 on. It returns early when ctx ends.
func Walk(ctx context.Context, pool *pgxpool.Pool, schema, table, statement string, args ...any) (rows int64, err error) {
	var end int64
	size := "SELECT pg_catalog.pg_relation_size($1::text::regclass) / pg_catalog.current_setting('block_size')::bigint"
	if err := lazytx.On(pool).QueryRow(ctx, size, pgx.Identifier{schema, table}.Sanitize()).Scan(&end); err != nil {
		return 0, fmt.Errorf("expire rows of %s: %w", table, err)
	}
	for from := int64(0); from < end; from += blocks {
		bounds := []any{tid(from), tid(from + blocks)}
		// At read committed a row that a publishing transaction updates meanwhile is skipped, and is no error.
		tag, err := lazytx.On(pool).Exec(ctx, statement, append(bounds, args...)...)
		if err != nil {
			return rows, fmt.Errorf("expire rows of %s: %w", table, err)
		}
		rows += tag.RowsAffected()
	}
	return rows, nil
}

func tid(block int64) string { return fmt.Sprintf("(%d,0)", block) }
