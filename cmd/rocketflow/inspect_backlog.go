package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/internal/inspect"
)

func newInspectBacklogCommand(flags *reportFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "backlog",
		Short: "Count what is owed to the broker, parked, dead, and armed",
		Long: fmt.Sprintf(`Counts the events that the broker hasn't confirmed, the events that consumers have parked, dead letters, armed
timeouts, and the events that wait for sagas. Counting ends at %d. The mark of the sweep stands still on a database that nobody writes to, and while a
transaction is open for long; if it stands still otherwise and events are owed, no process sweeps.`, inspect.MaxCount),
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			return flags.report(ctx, func(r *inspect.Reader) error {
				b, err := r.Backlog(ctx)
				if err != nil {
					return err
				}
				if flags.json {
					return printJSON(cmd.OutOrStdout(), b)
				}
				return printBacklog(cmd.OutOrStdout(), r.Now, b)
			})
		},
	}
}

func printBacklog(w io.Writer, now time.Time, b *inspect.Backlog) error {
	fmt.Fprintf(w, "owed to the broker (the sweep's mark moved %s)\n", away(now, b.MarkedAt))
	if len(b.Owed) == 0 {
		fmt.Fprintln(w, "  nothing")
	} else {
		table := newTable(w, "  ", "TOPIC", "EVENTS", "OLDEST")
		for _, o := range b.Owed {
			table.row(o.Topic, count(o.Events), momentAgo(now, o.Oldest))
		}
		if err := table.flush(); err != nil {
			return err
		}
	}
	fmt.Fprintln(w, "parked by consumers")
	if len(b.Parked) == 0 {
		fmt.Fprintln(w, "  nothing")
	} else {
		table := newTable(w, "  ", "CONSUMER", "REASON", "EVENTS", "OLDEST", "NEXT ATTEMPT")
		for _, p := range b.Parked {
			table.row(p.Consumer, string(p.Reason), count(p.Events), momentAgo(now, p.Oldest), next(now, p.NextAt))
		}
		if err := table.flush(); err != nil {
			return err
		}
	}
	fmt.Fprintln(w, "timeouts")
	table := newTable(w, "  ")
	table.row("armed", count(b.Timeouts.Armed))
	table.row("next due", momentAgo(now, b.Timeouts.NextDue))
	overdue := count(b.Timeouts.Overdue)
	if b.Timeouts.Overdue > 0 {
		overdue += ", the oldest since " + momentAgo(now, b.Timeouts.OldestDue)
	}
	table.row("overdue", overdue)
	if b.Timeouts.Stuck > 0 {
		table.row("stuck", count(b.Timeouts.Stuck)+", see rocketflow inspect timeouts")
	}
	if err := table.flush(); err != nil || len(b.Waiting) == 0 {
		return err
	}
	fmt.Fprintln(w, "waiting for sagas")
	table = newTable(w, "  ", "SAGA", "STATUS", "EVENTS", "OLDEST")
	for _, o := range b.Waiting {
		table.row(o.Saga, o.Status, count(o.Events), momentAgo(now, o.Oldest))
	}
	return table.flush()
}
