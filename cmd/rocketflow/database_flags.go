package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/migrations"
	"github.com/rocketflow/rocketflow/operate"
)

// databaseFlags are the flags of commands that work on rocketflow's tables.
type databaseFlags struct {
	url    string
	schema string
}

func (f *databaseFlags) add(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&f.url, "database-url", "", "Postgres to connect to (default $DATABASE_URL)")
	cmd.PersistentFlags().StringVar(&f.schema, "schema", rocketflow.DefaultSchema, "Postgres schema of rocketflow's tables")
}

// open connects to the database. The caller closes the pool.
func (f *databaseFlags) open(ctx context.Context) (*pgxpool.Pool, error) {
	url := f.url
	if url == "" {
		url = os.Getenv("DATABASE_URL")
	}
	if url == "" {
		return nil, usagef("no database is named: set --database-url or DATABASE_URL")
	}
	if f.schema == "" {
		return nil, usagef("--schema is empty: give it a value, or leave it out")
	}
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, usagef("--database-url: %w", err)
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		// pgx reports each address on a line of its own.
		return nil, fmt.Errorf("connect to Postgres: %s", strings.Join(strings.Fields(err.Error()), " "))
	}
	return pool, nil
}

// openMigrated connects to a database whose schema has the tables. The caller closes the pool.
func (f *databaseFlags) openMigrated(ctx context.Context) (*pgxpool.Pool, error) {
	pool, err := f.open(ctx)
	if err != nil {
		return nil, err
	}
	if err := migrations.Check(ctx, pool, f.schema); err != nil {
		defer pool.Close()
		return nil, f.withOtherSchemas(ctx, pool, err)
	}
	return pool, nil
}

// withOtherSchemas adds to the error that a schema is not migrated which other schemas are: --schema is often forgotten.
func (f *databaseFlags) withOtherSchemas(ctx context.Context, pool *pgxpool.Pool, err error) error {
	if !errors.Is(err, rocketflow.ErrNotMigrated) {
		return err
	}
	const most = 5
	o, e := operate.New(operate.Config{Pool: pool, Schema: f.schema})
	if e != nil {
		return err
	}
	schemas, e := o.Schemas(ctx, most+1)
	if e != nil || len(schemas) == 0 || slices.Contains(schemas, f.schema) {
		return err
	}
	if len(schemas) > most {
		schemas[most] = "…"
	}
	return fmt.Errorf("%w; or set --schema: this database has %s", err, strings.Join(schemas, ", "))
}
