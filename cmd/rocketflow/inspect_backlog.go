package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/operate"
)

func newInspectBacklogCommand(flags *reportFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "backlog",
		Short: "Count owed events, parked events, dead letters, armed timeouts and waiting events",
		Long: fmt.Sprintf(`Counts the owed events, the events that consumers have parked, dead letters, armed timeouts, and the events that
wait for sagas. Counts end at %d.

The watermark of the sweep doesn't move on a database without writes, nor while a transaction is open for long. If
it stands still otherwise and events are owed, no process sweeps: see that one of the service runs.`, operate.MaxCount),
		Example: "  rocketflow inspect backlog --schema order_rocketflow",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				b, err := o.Backlog(ctx)
				if err != nil {
					return err
				}
				if flags.json {
					return printJSON(cmd.OutOrStdout(), b)
				}
				now, err := o.Now(ctx)
				if err != nil {
					return err
				}
				return printBacklog(cmd.OutOrStdout(), now, b)
			})
		},
	}
}

func printBacklog(w io.Writer, now time.Time, b *operate.Backlog) error {
	fmt.Fprintf(w, "owed events (the sweep's watermark moved %s)\n", away(now, b.WatermarkMovedAt))
	if len(b.Owed) == 0 {
		fmt.Fprintln(w, "  none")
	} else {
		table := newTable(w, "  ", "TOPIC", "EVENTS", "OLDEST")
		for _, o := range b.Owed {
			table.row(o.Topic, count(o.Events), momentAgo(now, o.Oldest))
		}
		if err := table.flush(); err != nil {
			return err
		}
	}
	fmt.Fprintln(w, "parked events")
	if len(b.Parked) == 0 {
		fmt.Fprintln(w, "  none")
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
	fmt.Fprintln(w, "events that wait for sagas")
	table = newTable(w, "  ", "SAGA", "STATUS", "EVENTS", "OLDEST")
	for _, o := range b.Waiting {
		table.row(o.Saga, string(o.Status), count(o.Events), momentAgo(now, o.Oldest))
	}
	return table.flush()
}
