package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/internal/inspect"
)

func newInspectTimeoutsCommand(flags *reportFlags) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "timeouts [KEY]",
		Short: "List armed timeouts, the next due first",
		Long: `Lists the timeouts that are armed, all or those of a key, the next due first. The key of a saga's deadline is the saga's
name and key: order/4711. At the broker: it holds a timer; else the sweep hands the timeout over in time. Stuck: the event
was sent again and again, and nobody has handled it. See that a consumer of its topic has a handler for its type, and look
at dead letters (rocketflow redrive list).`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkLimit(limit); err != nil {
				return err
			}
			key := ""
			if len(args) == 1 {
				if key = args[0]; key == "" {
					return usagef("KEY is empty")
				}
			}
			ctx := cmd.Context()
			return flags.report(ctx, func(r *inspect.Reader) error {
				list, err := r.Timeouts(ctx, key, limit)
				switch {
				case err != nil:
					return err
				case flags.json:
					return printJSON(cmd.OutOrStdout(), list)
				case len(list) == 0:
					_, err := fmt.Fprintln(cmd.OutOrStdout(), "no armed timeouts")
					return err
				}
				return printTimeouts(cmd.OutOrStdout(), r.Now, list)
			})
		},
	}
	limitFlag(cmd, &limit, 50, "at most so many")
	return cmd
}

func printTimeouts(w io.Writer, now time.Time, list []inspect.Timeout) error {
	table := newTable(w, "", "KEY", "NAME", "DUE", "", "AT THE BROKER", "EVENT", "TYPE", "TOPIC")
	for _, t := range list {
		when := away(now, t.DueAt)
		if !t.DueAt.After(now) {
			when = "overdue for " + span(now.Sub(t.DueAt))
			if t.Sends > 0 {
				when += fmt.Sprintf(", sent %d times", t.Sends)
			}
			if !t.StuckAt.IsZero() {
				when += ", stuck"
			}
		}
		broker := "no"
		if t.HandedOver {
			broker = "yes"
		}
		table.row(t.Key, t.Name, moment(t.DueAt), when, broker, t.EventID.String(), t.Type, t.Topic)
	}
	return table.flush()
}
