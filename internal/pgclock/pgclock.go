// Package pgclock sets the time of a Postgres schema in tests. The clock of Postgres decides what is due, and it can't be set.
// But SQL calls clock_timestamp() and now() by their unqualified names, and Postgres finds functions of these names first in
// the schema that stands before pg_catalog in the search path.
//
// How far the time is ahead is the value of a sequence, because that is read outside of snapshots and can be set without a change of a
// function: that would make each connection plan its statements again.
//
// CURRENT_TIMESTAMP and its like are no functions and show the time of the machine, as do functions that are called by their
// qualified names.
package pgclock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/internal/partition"
	"github.com/rocketflow/rocketflow/internal/pgerror"
)

// functions are the functions that return the time. Each replacement has the volatility of the original.
var functions = []struct{ name, volatility string }{
	{"clock_timestamp", "VOLATILE"},
	{"statement_timestamp", "STABLE"},
	{"transaction_timestamp", "STABLE"},
	{"now", "STABLE"},
}

// SearchPath returns the search_path that connections need to use the schema's clock: the schema before pg_catalog.
func SearchPath(schema string) string { return quote(schema) + ", pg_catalog" }

// Install creates the clock of an existing schema. It shows the time of the machine until Set changes it. The connections of
// pool must have the SearchPath. Tables that are created on such a connection use the clock in their columns' defaults; for
// other tables call Adopt.
func Install(ctx context.Context, pool *pgxpool.Pool, schema string) error {
	var ddl strings.Builder
	offset := quote(schema) + ".clock_offset" // in microseconds
	fmt.Fprintf(&ddl, `CREATE SEQUENCE %[1]s MINVALUE 0; GRANT SELECT ON SEQUENCE %[1]s TO PUBLIC; SELECT pg_catalog.setval('%[2]s', 0);`, offset, literal(offset))
	for _, f := range functions {
		// The product is of microseconds, not of days: a day on which summer time begins or ends doesn't have 24 hours.
		fmt.Fprintf(&ddl, `CREATE FUNCTION %[1]s.%[2]s() RETURNS pg_catalog.timestamptz LANGUAGE sql %[3]s
			AS $$SELECT pg_catalog.%[2]s() OPERATOR(pg_catalog.+) (pg_catalog.pg_sequence_last_value('%[4]s') OPERATOR(pg_catalog.*) INTERVAL '1 microsecond')$$;`,
			quote(schema), f.name, f.volatility, literal(offset))
	}
	if _, err := pool.Exec(ctx, ddl.String()); err != nil { // without parameters: one round trip and one transaction
		return fmt.Errorf("install clock in schema %s: %w", schema, err)
	}
	var ours bool
	err := pool.QueryRow(ctx, "SELECT to_regprocedure('now()') = to_regprocedure($1)", quote(schema)+".now()").Scan(&ours)
	if err == nil && !ours {
		err = errors.New("the pool's search path must be " + SearchPath(schema))
	}
	if err != nil {
		return fmt.Errorf("install clock in schema %s: %w", schema, err)
	}
	return nil
}

// Set makes the schema's clock show the time of the machine plus offset, in microseconds. Every statement that begins after
// Set has returned, on any connection, gets the new time. The offset must not decrease. Calls may be concurrent; the last one
// counts.
//
// tables are further schemas with rocketflow's tables that use this clock. Set adopts them, and makes their partitions of the
// new day.
func Set(ctx context.Context, pool *pgxpool.Pool, schema string, offset time.Duration, tables ...string) error {
	for _, s := range append([]string{schema}, tables...) {
		if err := makePartitions(ctx, pool, s, offset); err != nil {
			return fmt.Errorf("set clock of schema %s: %w", schema, err)
		}
	}
	for _, s := range tables {
		if err := Adopt(ctx, pool, s); err != nil {
			return fmt.Errorf("set clock of schema %s: %w", schema, err)
		}
	}
	if _, err := pool.Exec(ctx, "SELECT pg_catalog.setval($1::text::regclass, $2::bigint)", quote(schema)+".clock_offset", offset.Microseconds()); err != nil {
		return fmt.Errorf("set clock of schema %s: %w", schema, err)
	}
	return nil
}

// Adopt makes the defaults of the columns in another schema's tables call the functions of the clock. A migration creates
// its tables with a search path of its own, so their defaults call those of pg_catalog. The connections of pool must have the
// SearchPath of the clock's schema.
func Adopt(ctx context.Context, pool *pgxpool.Pool, tables string) error {
	names := make([]string, len(functions))
	for i, f := range functions {
		names[i] = f.name
	}
	// pg_get_expr qualifies a function that the search path doesn't find first. It is called for this schema's columns alone.
	rows, err := pool.Query(ctx, `SELECT relname, attname, expression FROM (
			SELECT c.relname, a.attname, pg_get_expr(d.adbin, d.adrelid) AS expression
			FROM (SELECT oid, relname FROM pg_class WHERE relnamespace = to_regnamespace($1) AND relkind IN ('r', 'p') AND NOT relispartition OFFSET 0) c
			JOIN pg_attrdef d ON d.adrelid = c.oid JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
			OFFSET 0
		) columns
		WHERE expression ~ ('\mpg_catalog\.(' || $2 || ')\(')`, quote(tables), strings.Join(names, "|"))
	if err != nil {
		return fmt.Errorf("adopt the tables of schema %s: %w", tables, err)
	}
	type column struct{ Table, Name, Default string }
	columns, err := pgx.CollectRows(rows, pgx.RowToStructByPos[column])
	if err != nil {
		return fmt.Errorf("adopt the tables of schema %s: %w", tables, err)
	}
	for _, c := range columns {
		for _, name := range names {
			c.Default = strings.ReplaceAll(c.Default, "pg_catalog."+name+"(", name+"(")
		}
		// One transaction for each table: locks on several could end in a deadlock with a service that runs.
		_, err := pool.Exec(ctx, fmt.Sprintf("ALTER TABLE %s.%s ALTER COLUMN %s SET DEFAULT %s", quote(tables), quote(c.Table), quote(c.Name), c.Default))
		if err != nil {
			return fmt.Errorf("adopt column %s.%s of schema %s: %w", c.Table, c.Name, tables, err)
		}
	}
	return nil
}

// makePartitions makes the partitions of the new day. In production they exist days before. A test that sets the time past
// them would make them while services write the first rows of the day, which then fail.
func makePartitions(ctx context.Context, pool *pgxpool.Pool, schema string, offset time.Duration) error {
	var has []string
	err := pool.QueryRow(ctx, `SELECT ARRAY (SELECT name FROM unnest(ARRAY ['outbox', 'outbox_ack', 'inbox', 'timeout_history']) AS name
		WHERE to_regclass($1 || '.' || name) IS NOT NULL)`, quote(schema)).Scan(&has)
	if err != nil {
		return err
	}
	for _, name := range has {
		_, err := partition.Ensure(ctx, pool, partition.Table{Schema: schema, Name: name}, time.Now().Add(offset), 1)
		// Where a partition can't be made because the table is in use, or because the default partition has rows of its day, as of a
		// process whose clock is ahead, the default partition takes the rows.
		if err != nil && !errors.Is(err, partition.ErrBusy) && !pgerror.IsOutsidePartition(err) {
			return err
		}
	}
	return nil
}

func quote(schema string) string { return pgx.Identifier{schema}.Sanitize() }

// literal escapes text for a string of SQL.
func literal(text string) string { return strings.ReplaceAll(text, "'", "''") }
