// Package migrations holds rocketflow's tables as plain SQL and applies them to a Postgres schema of their own.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/rocketflow/rocketflow"
)

//go:embed *.sql
var files embed.FS

// Status is the state of one migration.
type Status struct {
	Version   int64
	Name      string
	AppliedAt time.Time // zero: pending
}

// Up applies what is pending, creating the schema if need be. It is safe to call from several processes at once, and
// on a schema that is up to date it changes nothing. schema is usually rocketflow.DefaultSchema.
func Up(ctx context.Context, pool *pgxpool.Pool, schema string) error {
	if _, err := pool.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+quote(schema)); err != nil && !isRace(err) {
		return fmt.Errorf("create schema %q: %w", schema, err)
	}
	return with(ctx, pool, schema, func(p *goose.Provider) error {
		if _, err := p.Up(ctx); err != nil {
			return fmt.Errorf("migrate schema %q up: %w", schema, err)
		}
		return nil
	})
}

// Down takes the newest migration back. Everything that it created goes, with what it holds.
func Down(ctx context.Context, pool *pgxpool.Pool, schema string) error {
	return with(ctx, pool, schema, func(p *goose.Provider) error {
		if _, err := p.Down(ctx); err != nil {
			return fmt.Errorf("migrate schema %q down: %w", schema, err)
		}
		return nil
	})
}

// List returns all migrations, oldest first. It only reads.
func List(ctx context.Context, pool *pgxpool.Pool, schema string) ([]Status, error) {
	var list []Status
	var begun bool
	if err := pool.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", quote(schema)+".goose_db_version").Scan(&begun); err != nil {
		return nil, fmt.Errorf("read migrations of schema %q: %w", schema, err)
	}
	err := with(ctx, pool, schema, func(p *goose.Provider) error {
		if !begun {
			for _, s := range p.ListSources() {
				list = append(list, Status{Version: s.Version, Name: s.Path})
			}
			return nil
		}
		statuses, err := p.Status(ctx)
		if err != nil {
			return fmt.Errorf("read migrations of schema %q: %w", schema, err)
		}
		for _, s := range statuses {
			list = append(list, Status{Version: s.Source.Version, Name: s.Source.Path, AppliedAt: s.AppliedAt})
		}
		return nil
	})
	return list, err
}

// Check returns an error that matches rocketflow.ErrNotMigrated unless the schema is as this version of the code needs
// it. It only reads.
func Check(ctx context.Context, pool *pgxpool.Pool, schema string) error {
	var applied int64
	err := pool.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM "+quote(schema)+".goose_db_version WHERE is_applied").Scan(&applied)
	var pgErr *pgconn.PgError
	switch {
	case errors.As(err, &pgErr) && pgErr.Code == "42P01": // undefined_table
		return fmt.Errorf("schema %q: %w", schema, rocketflow.ErrNotMigrated)
	case err != nil:
		return fmt.Errorf("check schema %q: %w", schema, err)
	case applied < latest():
		return fmt.Errorf("schema %q is at version %d, this version needs %d: %w", schema, applied, latest(), rocketflow.ErrNotMigrated)
	}
	return nil
}

// latest is the version of the newest file: they are numbered without holes.
func latest() int64 {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(err) // embedded
	}
	return int64(len(entries))
}

// with opens the schema as the search path, so that the files needn't name it.
func with(ctx context.Context, pool *pgxpool.Pool, schema string, fn func(*goose.Provider) error) error {
	config := pool.Config().ConnConfig.Copy()
	path := quote(schema)
	if own := config.RuntimeParams["search_path"]; strings.Contains(own, "pg_catalog") {
		// A test's clock: the pool has a now() before that of pg_catalog. The defaults of our columns are to mean it, too.
		var clock bool
		if err := pool.QueryRow(ctx, "SELECT to_regprocedure('now()') <> to_regprocedure('pg_catalog.now()')").Scan(&clock); err != nil {
			return fmt.Errorf("open migrations: %w", err)
		}
		if clock {
			path += ", " + own
		}
	}
	config.RuntimeParams["search_path"] = path
	db := stdlib.OpenDB(*config)
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(schemaLock(schema)))
	if err != nil {
		return fmt.Errorf("open migrations: %w", err)
	}
	return fn(provider)
}

// schemaLock keeps two processes from migrating one schema at a time. It waits in Postgres, where goose's own asks once a
// second, and for one schema only.
type schemaLock string

func (l schemaLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock(hashtextextended($1, 0))", l.name())
	return err
}

func (l schemaLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, "SELECT pg_advisory_unlock(hashtextextended($1, 0))", l.name())
	return err
}

func (l schemaLock) name() string { return "rocketflow migrations " + string(l) }

func quote(schema string) string { return pgx.Identifier{schema}.Sanitize() }

// isRace: two processes created the schema at the same time; it exists now.
func isRace(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == "23505"
}
