package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/migrations"
)

func newMigrateCommand() *cobra.Command {
	var flags databaseFlags
	// with runs fn on the database, then shows what the schema has become.
	with := func(fn func(context.Context, *pgxpool.Pool, string) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, _ []string) error {
			pool, err := flags.open(cmd.Context())
			if err != nil {
				return err
			}
			defer pool.Close()
			if err := fn(cmd.Context(), pool, flags.schema); err != nil {
				return err
			}
			list, err := migrations.List(cmd.Context(), pool, flags.schema)
			if err != nil {
				return err
			}
			return printMigrations(cmd.OutOrStdout(), list)
		}
	}
	cmd := parent("migrate", "Create, update or remove rocketflow's tables",
		&cobra.Command{Use: "up", Short: "Apply what is pending", Args: args(cobra.NoArgs), RunE: with(migrations.Up)},
		&cobra.Command{Use: "down", Short: "Take the newest migration back, with all the data in its tables", Args: args(cobra.NoArgs), RunE: with(migrations.Down)},
		&cobra.Command{Use: "status", Short: "List the migrations", Args: args(cobra.NoArgs),
			RunE: with(func(context.Context, *pgxpool.Pool, string) error { return nil })},
	)
	flags.add(cmd)
	return cmd
}

func printMigrations(w io.Writer, list []migrations.Status) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "VERSION\tNAME\tAPPLIED")
	for _, m := range list {
		applied := "pending"
		if !m.AppliedAt.IsZero() {
			applied = m.AppliedAt.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(table, "%d\t%s\t%s\n", m.Version, m.Name, applied)
	}
	return table.Flush()
}
