// Package pgclock sets the time of a Postgres schema in tests. The clock of Postgres decides what is due, and it can't be set.
// But SQL calls clock_timestamp() and now() by their unqualified names, and Postgres finds functions of these names first in
// the schema that stands before pg_catalog in the search path.
//
// CURRENT_TIMESTAMP and its like are no functions and show the time of the machine, as do functions that are called by their
// qualified names. A transaction that is open while the time is set may continue with the old time.
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
)

// functions are the functions that return the time. Each replacement has the volatility of the original, so that it is
// inlined.
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
	if err := replace(ctx, pool, schema, 0); err != nil {
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
	if err := replace(ctx, pool, schema, offset); err != nil {
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
	// pg_get_expr qualifies a function that the search path doesn't find first.
	rows, err := pool.Query(ctx, `SELECT c.relname, a.attname, pg_get_expr(d.adbin, d.adrelid)
		FROM pg_attrdef d JOIN pg_class c ON c.oid = d.adrelid JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
		WHERE c.relnamespace = to_regnamespace($1) AND NOT c.relispartition
			AND pg_get_expr(d.adbin, d.adrelid) ~ ('\mpg_catalog\.(' || $2 || ')\(')`, quote(tables), strings.Join(names, "|"))
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
		if err != nil && !errors.Is(err, partition.ErrBusy) { // then the default partition takes the rows
			return err
		}
	}
	return nil
}

func replace(ctx context.Context, pool *pgxpool.Pool, schema string, offset time.Duration) error {
	var ddl strings.Builder
	// Concurrent replacements of a function fail.
	fmt.Fprintf(&ddl, "SELECT pg_advisory_xact_lock(hashtextextended('rocketflow clock %s', 0));", strings.ReplaceAll(schema, "'", "''"))
	// Seconds, not days: a day on which summer time begins or ends doesn't have 24 hours.
	microseconds := offset.Microseconds()
	for _, f := range functions {
		fmt.Fprintf(&ddl, `CREATE OR REPLACE FUNCTION %[1]s.%[2]s() RETURNS pg_catalog.timestamptz LANGUAGE sql %[3]s PARALLEL SAFE
			AS $$SELECT pg_catalog.%[2]s() OPERATOR(pg_catalog.+) INTERVAL '%[4]d.%06[5]d seconds'$$;`,
			quote(schema), f.name, f.volatility, microseconds/1e6, microseconds%1e6)
	}
	_, err := pool.Exec(ctx, ddl.String()) // without parameters: one round trip and one transaction
	return err
}

func quote(schema string) string { return pgx.Identifier{schema}.Sanitize() }
