package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/operate"
)

func newInspectTimeoutsCommand(flags *reportFlags) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "timeouts [KEY]",
		Short: "List armed timeouts, the next due first",
		Long: `Lists armed timeouts, all or those of a key, the next due first. The key of a saga's deadline is the saga's name and key,
such as order/4711.

AT THE BROKER says whether the broker holds a timer for it; if not, the sweep hands it over in time. A stuck timeout is
overdue, its event was sent many times, and no consumer has handled it: see that a consumer of its topic has a handler for
its type, and look for a dead letter with rocketflow redrive list.`,
		Example: "  rocketflow inspect timeouts order/4711 --schema order_rocketflow",
		Args:    args(cobra.MaximumNArgs(1)),
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
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				list, err := o.Timeouts(ctx, operate.TimeoutFilter{Key: key, Limit: limit})
				if err != nil {
					return err
				}
				return printList(ctx, cmd.OutOrStdout(), flags, o, list, "no armed timeouts", printTimeouts)
			})
		},
	}
	limitFlag(cmd, &limit, 50, "at most this many")
	return cmd
}

func printTimeouts(w io.Writer, now time.Time, list []operate.Timeout) error {
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
