package main

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/operate"
)

const waitingEvent = "waiting event"

func newSagaCommand() *cobra.Command {
	var flags reportFlags
	cmd := parent("saga", "Retry or discard events that wait for sagas",
		newSagaRetryCommand(&flags),
		newSagaDiscardCommand(&flags),
	)
	cmd.Long = `An event that a saga can't take yet waits for it. An event that no state took in time has expired; one whose function
failed for good has failed. Both stay until they are retried or discarded, or until the retention has passed. rocketflow
inspect saga shows them.`
	cmd.Example = `  rocketflow saga retry 4711 --schema order_rocketflow
  rocketflow saga discard 4711 --name order --event 0190b6a5-7c1e-7d3a-9b6e-3f5d2c1a0e4f --yes`
	flags.addChange(cmd)
	return cmd
}

// waitingFlags select waiting events of a key.
type waitingFlags struct {
	name   string
	filter eventFlags
}

func (f *waitingFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.name, "name", "", "only events for the saga of this name")
	f.filter.add(cmd, "event")
	cmd.Flags().Lookup("event").Usage = "only the event with this id, whatever its status (default: all that failed or expired)"
}

// check returns the filter for a key.
func (f *waitingFlags) check(cmd *cobra.Command, key string) (w operate.WaitingFilter, err error) {
	if _, err := f.filter.check(cmd, time.Now()); err != nil {
		return w, err
	}
	if cmd.Flags().Changed("name") && f.name == "" {
		return w, usagef("--name is empty: give it a value, or leave it out")
	}
	if key == "" {
		return w, usagef("KEY is empty")
	}
	w = operate.WaitingFilter{Saga: f.name, Key: key, EventID: f.filter.eventID}
	if w.EventID == uuid.Nil {
		w.Statuses = []operate.WaitingStatus{operate.WaitingFailed, operate.WaitingExpired}
	}
	return w, nil
}

func newSagaRetryCommand(flags *reportFlags) *cobra.Command {
	var which waitingFlags
	cmd := &cobra.Command{
		Use:   "retry KEY",
		Short: "Apply events again that failed or expired",
		Long: `Makes the events of a key that failed or expired wait again, with 0 attempts and the full time until they expire.
Processes that run the saga apply them within seconds. Prints how many.`,
		Example: "  rocketflow saga retry 4711 --schema order_rocketflow",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := which.check(cmd, args[0])
			if err != nil {
				return err
			}
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				n, err := o.RetryWaiting(ctx, filter)
				return flags.printChanged(cmd.OutOrStdout(), "retried", n, waitingEvent, err)
			})
		},
	}
	which.add(cmd)
	return cmd
}

func newSagaDiscardCommand(flags *reportFlags) *cobra.Command {
	var which waitingFlags
	var confirm confirmFlag
	cmd := &cobra.Command{
		Use:   "discard KEY",
		Short: "Delete events that failed or expired, without their effect",
		Long: `Deletes the events of a key that failed or expired. The events that wait behind them are processed. Prints how many. Asks
for confirmation; where there is no terminal, --yes is required.`,
		Example: "  rocketflow saga discard 4711 --name order --yes",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := which.check(cmd, args[0])
			if err != nil {
				return err
			}
			if err := confirm.possible(cmd, "discarded events are deleted"); err != nil {
				return err
			}
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				list, err := o.WaitingEvents(ctx, filter)
				if err != nil {
					return err
				}
				if len(list) > 0 {
					if err := confirm.confirm(cmd, discardQuestion(len(list), waitingEvent, 0)); err != nil {
						return err
					}
				}
				n, err := o.DiscardWaiting(ctx, filter)
				return flags.printChanged(cmd.OutOrStdout(), "discarded", n, waitingEvent, err)
			})
		},
	}
	which.add(cmd)
	confirm.add(cmd)
	return cmd
}
