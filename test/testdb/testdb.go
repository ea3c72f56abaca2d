// Package testdb gives a test tables of its own on the PostgreSQL server that DATABASE_URL names. Use Migrated for a database with
// rocketflow's tables, Partitioned for one that has also the partitions of a running service, Clocked if the test also moves the time,
// Shared for a program that takes DATABASE_URL, and Schema for an empty schema. Pools with other roles, settings or a PgBouncer are
// derived from the returned pool by As, With, Mode and ThroughPgBouncer.
package testdb

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/internal/pgschema"
	"github.com/rocketflow/rocketflow/migrations"
)

// URL returns DATABASE_URL, and fails the test where it isn't set.
func URL(t testing.TB) string {
	t.Helper()
	url := os.Getenv("DATABASE_URL")
	if url == "" {
		t.Fatal("DATABASE_URL is not set: run `make test`, or start servers with `make dev` and export the two variables that it prints")
	}
	return url
}

// Schema creates an empty schema, and returns a pool and the schema's name. The pool's search path is the schema, so the
// test's own tables are created there too. The schema is dropped when the test ends.
func Schema(t testing.TB) (*pgxpool.Pool, string) {
	t.Helper()
	schema := name()
	pool := Open(t, URL(t), schema)
	create(t, pool, schema)
	return pool, schema
}

// name returns a unique name for a schema.
func name() string { return "test_" + strings.ReplaceAll(uuid.NewString(), "-", "")[:16] }

// create creates a schema and drops it when the test ends.
func create(t testing.TB, pool *pgxpool.Pool, schema string) {
	t.Helper()
	ctx := context.Background()
	if _, err := pool.Exec(ctx, "CREATE SCHEMA "+pgx.Identifier{schema}.Sanitize()); err != nil {
		t.Fatalf("create schema: %v", err)
	}
	t.Cleanup(func() {
		if err := pgschema.Drop(ctx, URL(t), schema); err != nil {
			t.Error(err)
		}
	})
}

// Migrated creates a database with one schema that has rocketflow's tables, and returns a pool, whose search path is the schema, and the
// schema's name. The database's URL is that of the pool's configuration: [pgxpool.Config.ConnString]. It is dropped when the test ends.
func Migrated(t testing.TB) (*pgxpool.Pool, string) {
	t.Helper()
	database, schema := migrated.copy(t)
	return Open(t, database, schema), schema
}

// Shared is Migrated in a schema of the database of DATABASE_URL, for tests of programs that take that variable.
func Shared(t testing.TB) (*pgxpool.Pool, string) {
	t.Helper()
	pool, schema := Schema(t)
	if err := migrations.Up(context.Background(), pool, schema); err != nil {
		t.Fatal(err)
	}
	return pool, schema
}

// Partitioned is Migrated with the partitions that a service makes when it starts, which takes a service a quarter of a second.
func Partitioned(t testing.TB) (*pgxpool.Pool, string) {
	t.Helper()
	database, schema := partitioned.copy(t)
	return Open(t, database, schema), schema
}

// Open returns a pool whose search path is schema. The pool is closed when the test ends.
func Open(t testing.TB, url, schema string) *pgxpool.Pool {
	t.Helper()
	return open(t, url, pgx.Identifier{schema}.Sanitize())
}

// open is Open for any search path.
func open(t testing.TB, url, searchPath string) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatalf("DATABASE_URL: %v", err)
	}
	config.ConnConfig.RuntimeParams["search_path"] = searchPath
	config.MaxConns = 16
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		t.Fatalf("connect to Postgres: %v", err)
	}
	t.Cleanup(pool.Close)
	if err := pool.Ping(ctx); err != nil {
		t.Fatalf("connect to Postgres: %v", err)
	}
	return pool
}

// Retry calls fn until it succeeds or fails with something other than a serialization failure or a deadlock, as applications
// have to retry transactions at isolation levels above read committed.
func Retry(fn func() error) error {
	for tries := 1; ; tries++ {
		err := fn()
		var pgErr *pgconn.PgError
		again := errors.As(err, &pgErr) && (pgErr.Code == "40001" || pgErr.Code == "40P01") // serialization_failure, deadlock_detected
		if !again || tries == 1000 {
			return err
		}
	}
}
