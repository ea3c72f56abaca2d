package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/operate"
)

// reportFlags are the flags of commands that show or change what is in rocketflow's tables.
type reportFlags struct {
	databaseFlags
	json       bool
	by, reason string // of a change
}

func (f *reportFlags) add(cmd *cobra.Command) {
	f.databaseFlags.add(cmd)
	cmd.PersistentFlags().BoolVar(&f.json, "json", false, "print JSON, for programs")
}

// addChange adds the flags of commands that change something.
func (f *reportFlags) addChange(cmd *cobra.Command) {
	f.add(cmd)
	cmd.PersistentFlags().StringVar(&f.by, "by", osUser(), "who makes the change, for the audit")
	cmd.PersistentFlags().StringVar(&f.reason, "reason", "", "why the change is made, for the audit")
}

// osUser returns the name of the user who runs the command; empty: unknown.
func osUser() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return os.Getenv("USER")
}

// operate calls fn with the operator of the schema.
func (f *reportFlags) operate(ctx context.Context, fn func(context.Context, *operate.Operator) error) error {
	return f.operateWith(ctx, operate.Config{}, fn)
}

// operateWith calls fn with an operator of the schema that has more than a pool.
func (f *reportFlags) operateWith(ctx context.Context, c operate.Config, fn func(context.Context, *operate.Operator) error) error {
	pool, err := f.openMigrated(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	c.Pool, c.Schema = pool, f.schema
	o, err := operate.New(c)
	if err != nil {
		return err
	}
	return fn(operate.WithActor(ctx, operate.Actor{Name: f.by, Reason: f.reason}), o)
}

// printJSON prints a value as indented JSON that changes nothing about a terminal.
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

// printChanged prints how many things a command has changed, such as "retried 2 dead letters". After an error, the number
// becomes part of the error.
func (f *reportFlags) printChanged(w io.Writer, done string, n int, thing string, err error) error {
	switch {
	case err != nil && n > 0:
		return fmt.Errorf("%w (%s before that: %d)", err, done, n)
	case err != nil:
		return err
	case f.json:
		return printJSON(w, map[string]int{done: n})
	}
	_, err = fmt.Fprintf(w, "%s %s\n", done, plural(n, thing))
	return err
}

// printDone prints what a change has done: result for programs, else a line.
func (f *reportFlags) printDone(w io.Writer, result any, line string, args ...any) error {
	if f.json {
		return printJSON(w, result)
	}
	_, err := fmt.Fprintf(w, line+"\n", args...)
	return err
}

// printList prints a list as JSON or with print, which gets the time by the database's clock, or says that there is none.
func printList[T any](ctx context.Context, w io.Writer, f *reportFlags, o *operate.Operator, list []T, none string, print func(io.Writer, time.Time, []T) error) error {
	switch {
	case f.json:
		return printJSON(w, list)
	case len(list) == 0:
		_, err := fmt.Fprintln(w, none)
		return err
	}
	now, err := o.Now(ctx)
	if err != nil {
		return err
	}
	return print(w, now, list)
}

// printListed prints how many things a list has shown.
func printListed(w io.Writer, n int, thing string, limit int) error {
	note := ""
	if n == limit {
		note = " (--limit is reached: there may be more)"
	}
	_, err := fmt.Fprintln(w, plural(n, thing)+note)
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

// required returns an error if one of the flags of a command is not set.
func required(cmd *cobra.Command, names ...string) error {
	for _, name := range names {
		if cmd.Flags().Lookup(name).Value.String() == "" {
			return usagef("--%s is missing", name)
		}
	}
	return nil
}

// count shows a count that ends at operate.MaxCount.
func count(n int64) string {
	if n >= operate.MaxCount {
		return strconv.Itoa(operate.MaxCount) + "+"
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
