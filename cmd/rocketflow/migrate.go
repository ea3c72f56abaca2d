package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/internal/installation"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/migrations"
)

func newMigrateCommand() *cobra.Command {
	var flags databaseFlags
	cmd := parent("migrate", "Create, update or remove rocketflow's tables",
		newMigrateUpCommand(&flags),
		newMigrateDownCommand(&flags),
		&cobra.Command{Use: "status", Short: "List the migrations, and which of them are applied", Args: args(cobra.NoArgs),
			Example: "  rocketflow migrate status --schema order_rocketflow",
			RunE:    flags.migrate(func(context.Context, *pgxpool.Pool) error { return nil })},
		newMigrateOwnerCommand(&flags),
	)
	cmd.Long = "Creates, updates, lists or reverts rocketflow's tables in the schema of a service."
	cmd.Example = `  rocketflow migrate up --schema order_rocketflow
  rocketflow migrate status --schema order_rocketflow`
	flags.add(cmd)
	return cmd
}

// migrate runs fn on the database, then lists the migrations of the schema.
func (f *databaseFlags) migrate(fn func(context.Context, *pgxpool.Pool) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		pool, err := f.open(cmd.Context())
		if err != nil {
			return err
		}
		defer pool.Close()
		if err := fn(cmd.Context(), pool); err != nil {
			return err
		}
		list, err := migrations.List(cmd.Context(), pool, f.schema)
		if err != nil {
			return err
		}
		return printMigrations(cmd.OutOrStdout(), list)
	}
}

func newMigrateUpCommand(flags *databaseFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Apply the pending migrations",
		Long: `Creates the schema and its tables, or adds what an older version of rocketflow didn't have. It waits for other processes
that migrate the schema, and for transactions that use a table that is changed, and names them.`,
		Example: "  rocketflow migrate up --schema order_rocketflow",
		Args:    args(cobra.NoArgs),
	}
	cmd.RunE = flags.migrate(func(ctx context.Context, pool *pgxpool.Pool) error {
		return migrations.UpNotify(ctx, pool, flags.schema, func(h migrations.Holder) {
			fmt.Fprintf(cmd.ErrOrStderr(), "waiting for %v\n", h)
		})
	})
	return cmd
}

func newMigrateDownCommand(flags *databaseFlags) *cobra.Command {
	var confirm confirmFlag
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Revert the newest migration, with all the data in its tables",
		Long: `Reverts the newest migration: the tables and columns that it added are dropped with their data, which may be owed events
and armed timeouts. Asks for confirmation; where there is no terminal, --yes is required.`,
		Example: "  rocketflow migrate down --schema order_rocketflow",
		Args:    args(cobra.NoArgs),
	}
	confirm.add(cmd)
	cmd.RunE = func(c *cobra.Command, args []string) error {
		return flags.migrate(func(ctx context.Context, pool *pgxpool.Pool) error {
			list, err := migrations.List(ctx, pool, flags.schema)
			if err != nil {
				return err
			}
			if question := downQuestion(flags.schema, list); question != "" {
				if err := confirm.possible(c, "the data in the tables of the newest migration is lost"); err != nil {
					return err
				}
				if err := confirm.confirm(c, question); err != nil {
					return err
				}
			}
			return migrations.Down(ctx, pool, flags.schema)
		})(c, args)
	}
	return cmd
}

// downQuestion returns what to ask before the newest migration is reverted; empty: no migration is applied.
func downQuestion(schema string, list []migrations.Status) string {
	for _, m := range slices.Backward(list) {
		if !m.AppliedAt.IsZero() {
			return fmt.Sprintf("revert %s in schema %s, and drop its tables and columns with all their data?", m.Name, schema)
		}
	}
	return ""
}

func newMigrateOwnerCommand(flags *databaseFlags) *cobra.Command {
	var set string
	cmd := &cobra.Command{
		Use:   "owner",
		Short: "Show or change the service that the schema belongs to",
		Long: `A schema belongs to the service that started on it first; a service of another name is refused. --set gives it to another
name, for a service that was renamed. Owed events are sent with their old source; for consumers, the new source begins new
streams. Stop the service before.`,
		Example: `  rocketflow migrate owner --schema order_rocketflow
  rocketflow migrate owner --schema order_rocketflow --set orders`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			pool, err := flags.openMigrated(cmd.Context())
			if err != nil {
				return err
			}
			defer pool.Close()
			if set != "" {
				if _, err := installation.SetOwner(cmd.Context(), pool, flags.schema, set); err != nil {
					return err
				}
			}
			_, owner, err := installation.Read(cmd.Context(), pool, flags.schema)
			if err != nil {
				return err
			}
			if owner == "" {
				owner = "no service yet: it will belong to the first that starts on it"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "schema %s belongs to %s\n", flags.schema, printable.Text(owner, 200))
			return err
		},
	}
	cmd.Flags().StringVar(&set, "set", "", "the source, which is the name of the service, that the schema is given to")
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
