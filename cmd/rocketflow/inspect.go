package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/inspect"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/migrations"
)

// reportFlags are the flags of commands that show what is in rocketflow's tables.
type reportFlags struct {
	databaseFlags
	json bool
}

func (f *reportFlags) add(cmd *cobra.Command) {
	f.databaseFlags.add(cmd)
	cmd.PersistentFlags().BoolVar(&f.json, "json", false, "print JSON, for machines")
}

func newInspectCommand() *cobra.Command {
	var flags reportFlags
	cmd := parent("inspect", "Show what has happened and what is waited for",
		newInspectSagaCommand(&flags),
		newInspectEventCommand(&flags),
		newInspectStreamCommand(&flags),
		newInspectBacklogCommand(&flags),
		newInspectTimeoutsCommand(&flags),
	)
	cmd.Long = `Reads rocketflow's tables and changes nothing. A service sees only its own schema: an event is in the outbox of the
service that published it and in the books of those that handle it, so look in each.`
	cmd.Example = `  rocketflow inspect backlog
  rocketflow inspect saga 4711 --schema order_rocketflow      # the example order service
  rocketflow inspect stream 4711 --schema payment_rocketflow  # the example payment service`
	flags.add(cmd)
	return cmd
}

// openMigrated is open for commands that need the tables.
func (f *databaseFlags) openMigrated(ctx context.Context) (*pgxpool.Pool, error) {
	pool, err := f.open(ctx)
	if err != nil {
		return nil, err
	}
	if err := migrations.Check(ctx, pool, f.schema); err != nil {
		defer pool.Close()
		return nil, f.elsewhere(ctx, pool, err)
	}
	return pool, nil
}

// elsewhere adds to the complaint that a schema is not migrated which others are: most often the wrong one was asked.
func (f *databaseFlags) elsewhere(ctx context.Context, pool *pgxpool.Pool, err error) error {
	if !errors.Is(err, rocketflow.ErrNotMigrated) {
		return err
	}
	const most = 5
	schemas, e := inspect.Schemas(ctx, pool, most+1)
	if e != nil || len(schemas) == 0 || slices.Contains(schemas, f.schema) {
		return err
	}
	if len(schemas) > most {
		schemas[most] = "…"
	}
	return fmt.Errorf("%w; or set --schema: this database has %s", err, strings.Join(schemas, ", "))
}

// report reads with fn.
func (f *reportFlags) report(ctx context.Context, fn func(*inspect.Reader) error) error {
	pool, err := f.openMigrated(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	return inspect.Read(ctx, pool, f.schema, fn)
}

func printJSON(w io.Writer, v any) error {
	var text bytes.Buffer
	out := json.NewEncoder(&text)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	if err := out.Encode(v); err != nil {
		return fmt.Errorf("encode as JSON: %w", err)
	}
	_, err := w.Write(printable.JSON(text.Bytes()))
	return err
}

// limitFlag adds --limit.
func limitFlag(cmd *cobra.Command, limit *int, value int, usage string) {
	cmd.Flags().IntVar(limit, "limit", value, usage)
}

func checkLimit(limit int) error {
	if limit < 1 {
		return usagef("--limit %d: want at least 1", limit)
	}
	return nil
}

// count shows a count that ends at inspect.MaxCount.
func count(n int64) string {
	if n >= inspect.MaxCount {
		return strconv.Itoa(inspect.MaxCount) + "+"
	}
	return strconv.FormatInt(n, 10)
}

// plural is "1 thing" or "2 things".
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
