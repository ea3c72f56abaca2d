package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/migrations"
)

// connectTimeout bounds the wait for a database that comes up at the same time as the service.
const connectTimeout = 15 * time.Second

// OpenDatabase connects, creates what is missing of rocketflow's tables and of the service's own (tables, which may be
// applied again and again), and returns a pool that finds names in the service's schema first, and then where DATABASE_URL
// says (search_path).
func OpenDatabase(ctx context.Context, c Config, tables string) (*pgxpool.Pool, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	config := c.Database.Copy()
	path := pgx.Identifier{c.Schema}.Sanitize()
	if given := config.ConnConfig.RuntimeParams["search_path"]; given != "" {
		path += ", " + given
	}
	config.ConnConfig.RuntimeParams["search_path"] = path
	config.ConnConfig.RuntimeParams["application_name"] = c.Name
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, &rocketflow.FieldError{Field: "DATABASE_URL", Reason: "open pool: " + err.Error(), Err: err}
	}
	if err := prepare(ctx, pool, c, tables); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

func prepare(ctx context.Context, pool *pgxpool.Pool, c Config, tables string) error {
	if err := ping(ctx, pool); err != nil {
		return &rocketflow.FieldError{Field: "DATABASE_URL", Reason: "can't reach the database: " + err.Error(), Err: err}
	}
	err := migrations.Check(ctx, pool, c.RocketflowSchema)
	if errors.Is(err, rocketflow.ErrNotMigrated) {
		err = migrations.Up(ctx, pool, c.RocketflowSchema)
	}
	if err != nil {
		return err
	}
	// Another process may be at it, too: IF NOT EXISTS isn't safe against itself.
	var exists *pgconn.PgError
	_, err = pool.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+pgx.Identifier{c.Schema}.Sanitize())
	if err != nil && !(errors.As(err, &exists) && exists.Code == uniqueViolation) {
		return fmt.Errorf("create schema %q: %w", c.Schema, err)
	}
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		// One process at a time: CREATE ... IF NOT EXISTS isn't safe against itself.
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtext('tables of ' || $1))", c.Schema); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, tables+effectsTable)
		return err
	})
	if err != nil {
		return fmt.Errorf("create tables in schema %q: %w", c.Schema, err)
	}
	return nil
}

// Codes of Postgres' answers.
const (
	startingUp      = "57P03" // cannot_connect_now
	uniqueViolation = "23505"
)

// ping tries until the database answers or ctx ends.
func ping(ctx context.Context, pool *pgxpool.Pool) error {
	for {
		err := pool.Ping(ctx)
		var refused *pgconn.PgError // it answers, and means no
		if err == nil || errors.As(err, &refused) && refused.Code != startingUp {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}
