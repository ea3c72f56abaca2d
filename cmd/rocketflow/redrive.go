package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/operate"
)

const deadLetter = "dead letter"

// parkedFlags are the flags that select parked events and dead letters.
var parkedFlags = []string{"consumer", "source", "topic", "type", "subject", "event"}

func newRedriveCommand() *cobra.Command {
	var flags reportFlags
	cmd := parent("redrive", "List, retry, edit or discard dead letters, and unblock streams",
		newRedriveListCommand(&flags, "list", "List dead letters, those that were parked first first", deadLetter, (*operate.Operator).DeadLetters),
		newRedriveListCommand(&flags, "parked", "List parked events: those that wait for an attempt, a predecessor or a handler", "parked event", (*operate.Operator).ParkedEvents),
		newRedriveRetryCommand(&flags),
		newRedriveShowCommand(&flags),
		newRedriveEditCommand(&flags),
		newRedriveDiscardCommand(&flags),
		newRedriveAcceptCommand(&flags),
		newRedriveRetireCommand(&flags),
		newRedriveResetCommand(&flags),
	)
	cmd.Long = `A dead letter is an event whose handler failed for good. It stays until it is retried or discarded; the later events of
its stream wait for it.

An event is selected if it matches all of the flags that are set.`
	cmd.Example = `  rocketflow redrive list --schema order_rocketflow    # the example order service
  rocketflow redrive retry --consumer billing --schema order_rocketflow
  rocketflow redrive discard --event 0190b6a5-7c1e-7d3a-9b6e-3f5d2c1a0e4f`
	flags.addChange(cmd)
	return cmd
}

func newRedriveRetryCommand(flags *reportFlags) *cobra.Command {
	var filter eventFlags
	var options operate.RetryOptions
	cmd := &cobra.Command{
		Use:   "retry",
		Short: "Make dead letters due again, with their attempts counted from 0 again",
		Long: `Makes dead letters due. Processes that run their consumer handle them within seconds. Prints how many. An event whose
handler fails until the last attempt becomes a dead letter again. With --try-first, one is retried first, and the others
only once it was handled. With --rate, so many become due in a second.`,
		Example: `  rocketflow redrive retry --consumer billing --type order.closed
  rocketflow redrive retry --consumer billing --try-first --rate 50`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := filter.checkChange(cmd, time.Now()); err != nil {
				return err
			}
			if options.Rate < 0 || options.Rate == 0 && cmd.Flags().Changed("rate") {
				return usagef("--rate %v: want more than 0", options.Rate)
			}
			if options.FirstTimeout <= 0 {
				return usagef("--first-timeout %v: want more than 0", options.FirstTimeout)
			}
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				n, err := o.RetryCarefully(ctx, filter.parked(), options)
				return flags.printChanged(cmd.OutOrStdout(), "retried", n, deadLetter, err)
			})
		},
	}
	filter.addChange(cmd, "retry all dead letters", parkedFlags...)
	cmd.Flags().BoolVar(&options.TryFirst, "try-first", false, "retry one first, and the others only once it was handled")
	cmd.Flags().DurationVar(&options.FirstTimeout, "first-timeout", time.Minute, "how long the first may take")
	cmd.Flags().Float64Var(&options.Rate, "rate", 0, "at most this many per second (default no limit)")
	return cmd
}

func newRedriveDiscardCommand(flags *reportFlags) *cobra.Command {
	var filter eventFlags
	var confirm confirmFlag
	cmd := &cobra.Command{
		Use:   "discard",
		Short: "Give up dead letters: they count as handled, without their effect",
		Long: `Records dead letters as handled although they had no effect, and deletes them. The events that wait behind them are
handled then. Prints how many. Asks for confirmation; where there is no terminal, --yes is required.`,
		Example: "  rocketflow redrive discard --event 0190b6a5-7c1e-7d3a-9b6e-3f5d2c1a0e4f",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := filter.checkChange(cmd, time.Now()); err != nil {
				return err
			}
			if err := confirm.possible(cmd, "discarded events are deleted"); err != nil {
				return err
			}
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				list, err := o.DeadLetters(ctx, filter.parked())
				if err != nil {
					return err
				}
				n := 0
				if len(list) > 0 {
					if filter.limit, err = confirm.discard(cmd, len(list), deadLetter, filter.limit); err != nil {
						return err
					}
					n, err = o.DiscardDeadLetters(ctx, filter.parked())
				}
				return flags.printChanged(cmd.OutOrStdout(), "discarded", n, deadLetter, err)
			})
		},
	}
	filter.addChange(cmd, "discard all dead letters", parkedFlags...)
	confirm.add(cmd)
	return cmd
}
