package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
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
		&cobra.Command{Use: "status", Short: "List the migrations", Args: args(cobra.NoArgs),
			RunE: flags.migrate(func(context.Context, *pgxpool.Pool) error { return nil })},
		newMigrateOwnerCommand(&flags),
	)
	flags.add(cmd)
	return cmd
}

// migrate runs fn on the database, then shows what the schema has become.
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
		Short: "Apply what is pending",
		Long: `Creates the schema and its tables, or what an older version of rocketflow lacks. It waits for others that migrate the
schema and for transactions that use a table that is changed, and says who they are.`,
		Args: args(cobra.NoArgs),
	}
	cmd.RunE = flags.migrate(func(ctx context.Context, pool *pgxpool.Pool) error {
		return migrations.UpNotify(ctx, pool, flags.schema, func(h migrations.Holder) {
			fmt.Fprintf(cmd.ErrOrStderr(), "waiting for %v\n", h)
		})
	})
	return cmd
}

func newMigrateDownCommand(flags *databaseFlags) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Take the newest migration back, with all the data in its tables",
		Long: `Takes the newest migration back: the tables and columns that it made are dropped, and what they hold is lost, owed events
and armed timeouts too. It asks first, unless --yes says not to.`,
		Args: args(cobra.NoArgs),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "don't ask")
	cmd.RunE = func(c *cobra.Command, args []string) error {
		return flags.migrate(func(ctx context.Context, pool *pgxpool.Pool) error {
			if !yes {
				list, err := migrations.List(ctx, pool, flags.schema)
				if err != nil {
					return err
				}
				if err := confirm(c, downQuestion(flags.schema, list)); err != nil {
					return err
				}
			}
			return migrations.Down(ctx, pool, flags.schema)
		})(c, args)
	}
	return cmd
}

// confirm asks at a terminal; where there is none only --yes is an answer.
func confirm(cmd *cobra.Command, question string) error {
	if question == "" {
		return nil
	}
	if !isTerminal(cmd.InOrStdin()) {
		return usagef("to %s without being asked, add --yes", strings.TrimSuffix(question, "?"))
	}
	if !ask(cmd.InOrStdin(), cmd.ErrOrStderr(), question) {
		fmt.Fprintln(cmd.ErrOrStderr(), "nothing was changed")
		return errDeclined
	}
	return nil
}

// downQuestion is empty if no migration is applied.
func downQuestion(schema string, list []migrations.Status) string {
	for _, m := range slices.Backward(list) {
		if !m.AppliedAt.IsZero() {
			return fmt.Sprintf("take back %s in schema %s, and drop its tables and columns with all that they hold?", m.Name, schema)
		}
	}
	return ""
}

func newMigrateOwnerCommand(flags *databaseFlags) *cobra.Command {
	var set string
	cmd := &cobra.Command{
		Use:   "owner",
		Short: "Show or change the service that the schema belongs to",
		Long: `A schema belongs to the service that started on it first: another one is refused. --set gives it to another name, for a
service that was renamed. Events that are owed go out under their old source; consumers see the new one as the source of
new streams. Stop the service before.`,
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
				if _, err := installation.Give(cmd.Context(), pool, flags.schema, set); err != nil {
					return err
				}
			}
			_, owner, err := installation.Read(cmd.Context(), pool, flags.schema)
			if err != nil {
				return err
			}
			if owner == "" {
				owner = "nobody: the first service that starts on it will have it"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "schema %s belongs to %s\n", flags.schema, printable.Text(owner, 200))
			return err
		},
	}
	cmd.Flags().StringVar(&set, "set", "", "the source, that is the service's name, to give it to")
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
