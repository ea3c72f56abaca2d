package testdb

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Role creates a role that may only log in, and returns its name. The role is dropped with all that it owns, in each database, when the
// test ends.
func Role(t testing.TB) string {
	t.Helper()
	role := "role_" + strings.TrimPrefix(name(), "test_")
	Exec(t, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%[1]s'", role))
	t.Cleanup(func() {
		for _, database := range strings.Fields(query(t, "SELECT string_agg(DISTINCT datname, ' ') FROM pg_database d JOIN pg_shdepend s ON s.dbid = d.oid WHERE s.refobjid = '"+role+"'::regrole")) {
			ExecIn(t, withDatabase(t, database), "DROP OWNED BY "+role+" CASCADE")
		}
		Exec(t, "DROP OWNED BY "+role+" CASCADE", "DROP ROLE "+role)
	})
	return role
}

// query returns the text that a statement selects as the role of DATABASE_URL, "" for null.
func query(t testing.TB, statement string) string {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, URL(t))
	if err != nil {
		t.Fatalf("connect to Postgres: %v", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	var text *string
	if err := conn.QueryRow(ctx, statement).Scan(&text); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	if text == nil {
		return ""
	}
	return *text
}

// Exec executes statements on the database of DATABASE_URL as its role, and fails the test at the first error.
func Exec(t testing.TB, statements ...string) {
	t.Helper()
	ExecIn(t, URL(t), statements...)
}

// ExecIn is Exec on another database.
func ExecIn(t testing.TB, databaseURL string, statements ...string) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		t.Fatalf("connect to Postgres: %v", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// As returns a copy of pool that connects as a role that Role has created.
func As(t testing.TB, pool *pgxpool.Pool, role string) *pgxpool.Pool {
	t.Helper()
	return Like(t, pool, func(c *pgxpool.Config) { c.ConnConfig.User, c.ConnConfig.Password = role, role })
}

// With returns a copy of pool whose connections have additional settings.
func With(t testing.TB, pool *pgxpool.Pool, settings map[string]string) *pgxpool.Pool {
	t.Helper()
	return Like(t, pool, func(c *pgxpool.Config) {
		for name, value := range settings {
			c.ConnConfig.RuntimeParams[name] = value
		}
	})
}

// Mode returns a copy of pool that executes statements in a mode of pgx.
func Mode(t testing.TB, pool *pgxpool.Pool, mode pgx.QueryExecMode) *pgxpool.Pool {
	t.Helper()
	return Like(t, pool, func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = mode })
}

// Modes are all query execution modes of pgx.
var Modes = []pgx.QueryExecMode{
	pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
	pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
}

// InEachMode runs test in parallel subtests: in each of Modes at read committed, and with each other isolation level as the
// default of its connections. Each subtest has a migrated schema of its own.
func InEachMode(t *testing.T, test func(t *testing.T, pool *pgxpool.Pool, schema string)) {
	t.Helper()
	type variant struct {
		mode      pgx.QueryExecMode
		isolation pgx.TxIsoLevel
	}
	var variants []variant
	for _, mode := range Modes {
		variants = append(variants, variant{mode, pgx.ReadCommitted})
	}
	for _, isolation := range []pgx.TxIsoLevel{pgx.RepeatableRead, pgx.Serializable} {
		variants = append(variants, variant{Modes[0], isolation})
	}
	for _, v := range variants {
		t.Run(v.mode.String()+" "+string(v.isolation), func(t *testing.T) {
			t.Parallel()
			pool, schema := Migrated(t)
			test(t, Like(t, pool, func(c *pgxpool.Config) {
				c.ConnConfig.DefaultQueryExecMode = v.mode
				c.ConnConfig.RuntimeParams["default_transaction_isolation"] = string(v.isolation)
			}), schema)
		})
	}
}

// Like returns a pool like another one but for a change. It is closed when the test ends.
func Like(t testing.TB, pool *pgxpool.Pool, change func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	config := pool.Config() // a copy
	change(config)
	like, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		t.Fatalf("connect to Postgres: %v", err)
	}
	t.Cleanup(like.Close)
	return like
}
