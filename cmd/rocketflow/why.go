package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/operate"
)

// whyFlags are the flags of why.
type whyFlags struct {
	systemFlags
	lines int
}

func newWhyCommand() *cobra.Command {
	var f whyFlags
	cmd := &cobra.Command{
		Use:   "why ID",
		Short: "Explain what happened to an event, an order or a saga, what it waits for, and what to do",
		Long: `Prints one time line of all services, then one verdict: done, or what it waits for, since when and why, and the command
that helps. ID is an event's id; a subject, such as an order's number; a saga's or a timeout's key; or a message's id, as
RocketMQ's tools show it.
By default all schemas of the database with rocketflow's tables are read. What only the broker knows, such as that a
message is still unread in a queue, it is asked for if --namesrv or ROCKETMQ_NAMESRV is set. Credentials and TLS are
those of rocketflow resend. A schema, or one of several databases, that can't be read is named at the end.
It reads by indexes and changes nothing.`,
		Example: `  rocketflow why 4711
  rocketflow why 0190b6a5-7c1e-7d3a-9b6e-3f5d2c1a0e4f --namesrv 127.0.0.1:9876
  rocketflow why 4711 --database "$ORDERS_URL" --database "$PAYMENTS_URL" --json`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "" {
				return usagef("ID is empty")
			}
			if f.lines < 1 {
				return usagef("--lines %d: want at least 1", f.lines)
			}
			return f.with(cmd.Context(), func(ctx context.Context, y *operate.System, problem error) error {
				x, err := y.Why(ctx, args[0])
				if err != nil {
					return err
				}
				x.Broker = f.brokerNote(x.Broker, problem)
				if f.json {
					return printJSON(cmd.OutOrStdout(), x)
				}
				return printExplanation(cmd.OutOrStdout(), x, f.lines)
			})
		},
	}
	f.add(cmd)
	f.partial = true
	cmd.Flags().IntVar(&f.lines, "lines", 15, "at most this many lines of the time line, the newest")
	return cmd
}

// printExplanation prints a time line and the verdict.
func printExplanation(w io.Writer, x *operate.Explanation, lines int) error {
	fmt.Fprintln(w, cell(x.Title, maxCell))
	omitted, list := x.Omitted, alike(x.Timeline)
	for ; len(list) > lines; list = list[1:] {
		omitted += list[0].more + 1
	}
	if omitted > 0 {
		fmt.Fprintf(w, "  … %s left out: see --lines\n", plural(omitted, "earlier line"))
	}
	table := newTable(w, "")
	day, event := time.Time{}, uuid.Nil
	for _, e := range list {
		mark, at := " ", ""
		if e.Problem {
			mark = "!"
		}
		if !e.At.IsZero() {
			at = e.At.UTC().Format("15:04:05.000")
			if d := e.At.UTC().Truncate(24 * time.Hour); d != day {
				day, at = d, e.At.UTC().Format("2006-01-02 15:04:05.000")
			}
		}
		text := e.Text
		if x.Kind == operate.ExplainsKey && e.EventID != uuid.Nil && e.EventID != event {
			text += " [" + e.EventID.String() + "]"
		}
		event = e.EventID
		if e.more > 0 {
			text += fmt.Sprintf(", and %d more like it until %s", e.more, e.until.UTC().Format("15:04:05.000"))
		}
		table.row(mark+" "+at, short(e.Service), text)
	}
	if err := table.flush(); err != nil {
		return err
	}
	printVerdict(w, x.Now, "verdict", x.Verdict)
	for _, v := range x.Also {
		printVerdict(w, x.Now, "also", v)
	}
	if x.Broker != "" {
		fmt.Fprintf(w, "broker: %s\n", cell(x.Broker, maxCell))
	}
	if x.Kind == operate.ExplainsNothing {
		fmt.Fprintln(w, "looked in")
		table := newTable(w, "  ")
		for _, p := range x.Looked {
			keeps := "its outbox has no event"
			if !p.OldestEvent.IsZero() {
				keeps = "its outbox keeps events since " + momentAgo(x.Now, p.OldestEvent)
			}
			table.row(p.Schema, "of "+p.Service, keeps)
		}
		if err := table.flush(); err != nil {
			return err
		}
	}
	for _, u := range x.Unread {
		fmt.Fprintf(w, "not read: schema %s: %s\n", short(u.Schema), cell(u.Reason, maxCell))
	}
	return nil
}

// entries are an entry of a time line and those after it that say the same of other events.
type entries struct {
	operate.Entry
	more  int
	until time.Time // when the last of them was
}

// alike merges entries that follow each other and say the same.
func alike(list []operate.Entry) (merged []entries) {
	for _, e := range list {
		if n := len(merged); n > 0 {
			last := &merged[n-1]
			if last.Text == e.Text && last.Service == e.Service && last.Problem == e.Problem && !e.At.IsZero() && !last.At.IsZero() {
				last.more, last.until = last.more+1, e.At
				continue
			}
		}
		merged = append(merged, entries{Entry: e})
	}
	return merged
}

// printVerdict prints a verdict on a line, and the command that helps on another.
func printVerdict(w io.Writer, now time.Time, head string, v operate.Verdict) {
	fmt.Fprintf(w, "%s: %s\n", head, cell(verdictText(now, v), maxCell))
	if v.Command != "" {
		fmt.Fprintf(w, "  run: %s\n", printable.Line(v.Command, maxCell))
	}
}

func verdictText(now time.Time, v operate.Verdict) string {
	var b strings.Builder
	b.WriteString(string(v.State))
	if v.State == operate.VerdictDone {
		if v.What != "" {
			b.WriteString(": " + v.What)
		}
		if !v.Since.IsZero() {
			b.WriteString(", " + momentAgo(now, v.Since))
		}
		return b.String()
	}
	if v.For == "" {
		return b.String() + ": " + v.Because
	}
	b.WriteString(": waits for " + v.For)
	if !v.Since.IsZero() {
		b.WriteString(" since " + momentAgo(now, v.Since))
	}
	if v.Because != "" {
		b.WriteString(", because " + v.Because)
	}
	return b.String()
}
