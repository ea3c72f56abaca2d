// Package pgclock moves the time of a Postgres schema, for tests. What is due is decided by the clock of Postgres, which
// nobody can set; but our SQL, like most people's, calls clock_timestamp() and now() by their bare names, and so gets
// functions of a schema that stands before pg_catalog in the search path.
//
// CURRENT_TIMESTAMP and its like are no functions and stay with the machine, as do functions that are called by their
// full names. A transaction that is open while the clock is moved may go on by the old time.
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

// functions are those that tell the time, with their volatility: one that differs would keep them from being inlined.
var functions = []struct{ name, volatility string }{
	{"clock_timestamp", "VOLATILE"},
	{"statement_timestamp", "STABLE"},
	{"transaction_timestamp", "STABLE"},
	{"now", "STABLE"},
}

// SearchPath is what connections need as their search_path: the schema before pg_catalog.
func SearchPath(schema string) string { return quote(schema) + ", pg_catalog" }

// Install gives a schema, which exists, a clock that shows the machine's time. It comes before the tables: a column's
// default is bound to its function when the table is made. The connections of pool must have the SearchPath.
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

// Set has the schema's clock show the machine's time plus offset, of which it sees whole microseconds. When it returns,
// every statement that begins on any connection goes by the new time. An offset less than the one before turns time
// back, which nothing here expects. Calls may run at once; the last one wins.
//
// tables are schemas with rocketflow's tables that live by this clock, besides schema itself.
func Set(ctx context.Context, pool *pgxpool.Pool, schema string, offset time.Duration, tables ...string) error {
	for _, s := range append([]string{schema}, tables...) {
		if err := ahead(ctx, pool, s, offset); err != nil {
			return fmt.Errorf("set clock of schema %s: %w", schema, err)
		}
	}
	if err := replace(ctx, pool, schema, offset); err != nil {
		return fmt.Errorf("set clock of schema %s: %w", schema, err)
	}
	return nil
}

// ahead makes the partitions of the day to come. In life they are there days before. Whoever jumps over these days would
// find none, and making them while others write the first rows of the day makes those fail.
func ahead(ctx context.Context, pool *pgxpool.Pool, schema string, offset time.Duration) error {
	var has []string
	err := pool.QueryRow(ctx, `SELECT ARRAY (SELECT name FROM unnest(ARRAY ['outbox', 'outbox_ack', 'inbox']) AS name
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
	// Two that replace a function at a time get in each other's way.
	fmt.Fprintf(&ddl, "SELECT pg_advisory_xact_lock(hashtextextended('rocketflow clock %s', 0));", strings.ReplaceAll(schema, "'", "''"))
	// Seconds, not days: a day that begins or ends summer time isn't 24 hours long.
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
