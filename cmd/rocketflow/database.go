package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow"
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
