package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/operate"
)

func newInspectTimeoutsCommand(flags *reportFlags) *cobra.Command {
	var limit int
	var ended bool
	cmd := &cobra.Command{
		Use:   "timeouts [KEY]",
		Short: "List armed timeouts, the next due first",
		Long: `Lists armed timeouts, all or those of a key, the next due first. The key of a saga's deadline is the saga's name and key,
such as order/4711.

AT THE BROKER says whether the broker holds a timer for it; if not, the sweep hands it over in time. A stuck timeout is
overdue, its event was sent many times, and no consumer has handled it: see that a consumer of its topic has a handler for
its type, and look for a dead letter with rocketflow redrive list.

With --ended, what became of the timeouts of the key that have ended, the latest first: they fired, were moved or armed
again and so got another event, were disarmed, or were settled without having been handled. It is kept for
outbox.Config.TimeoutHistoryRetention, by default 7 days.`,
		Example: `  rocketflow inspect timeouts order/4711 --schema order_rocketflow
  rocketflow inspect timeouts order/4711 --ended`,
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
			if ended && key == "" {
				return usagef("--ended: KEY is missing")
			}
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				if ended {
					list, err := o.EndedTimeouts(ctx, operate.TimeoutFilter{Key: key, Limit: limit})
					if err != nil {
						return err
					}
					return printList(ctx, cmd.OutOrStdout(), flags, o, list, "no timeouts that have ended", printEndedTimeouts)
				}
				list, err := o.Timeouts(ctx, operate.TimeoutFilter{Key: key, Limit: limit})
				if err != nil {
					return err
				}
				return printList(ctx, cmd.OutOrStdout(), flags, o, list, "no armed timeouts", printTimeouts)
			})
		},
	}
	limitFlag(cmd, &limit, 50, "at most this many")
	cmd.Flags().BoolVar(&ended, "ended", false, "those of KEY that are not armed any more")
	return cmd
}

func printEndedTimeouts(w io.Writer, now time.Time, list []operate.EndedTimeout) error {
	table := newTable(w, "", "KEY", "NAME", "ENDED", "", "OUTCOME", "DUE", "ARMED", "EVENT", "TYPE", "TOPIC")
	for _, t := range list {
		table.row(t.Key, t.Name, moment(t.EndedAt), away(now, t.EndedAt), endedText(&t), moment(t.DueAt), moment(t.ArmedAt), t.EventID.String(), t.Type, t.Topic)
	}
	return table.flush()
}

// endedText says how a timeout ended.
func endedText(t *operate.EndedTimeout) string {
	text := string(t.Outcome)
	if t.ByOperator {
		text += " by an operator"
	}
	switch {
	case t.Outcome == operate.TimeoutFired && t.NextEventID != uuid.Nil:
		text += ", and armed again"
	case t.Outcome == operate.TimeoutSettled:
		text += " without having fired"
	}
	return text
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
