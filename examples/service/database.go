package service

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// uniqueViolation is Postgres' code for it.
const uniqueViolation = "23505"

// createTables creates the service's own schema and its tables (DDL that can be applied again and again) where they are
// missing. A service with more than a few tables uses a migration tool.
func createTables(ctx context.Context, pool *pgxpool.Pool, schema, tables string) error {
	// Another process may do the same at this moment, against which IF NOT EXISTS isn't safe.
	var exists *pgconn.PgError
	_, err := pool.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+pgx.Identifier{schema}.Sanitize())
	if err != nil && !(errors.As(err, &exists) && exists.Code == uniqueViolation) {
		return fmt.Errorf("create schema %q: %w", schema, err)
	}
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtext('tables of ' || $1))", schema); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, tables+effectsTable)
		return err
	})
	if err != nil {
		return fmt.Errorf("create tables in schema %q: %w", schema, err)
	}
	return nil
}
