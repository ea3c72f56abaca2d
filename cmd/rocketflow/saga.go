package main

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/saga"
)

func newSagaCommand() *cobra.Command {
	var flags reportFlags
	cmd := parent("saga", "Retry or discard the events that wait for sagas",
		newSagaRetryCommand(&flags),
		newSagaDiscardCommand(&flags),
	)
	cmd.Long = `An event that a saga can't take yet waits for it. One that no state took in time has expired, one whose function failed for
good has failed: both stay until they are retried or discarded, or the retention has passed. See rocketflow inspect saga.`
	cmd.Example = `  rocketflow saga retry 4711 --schema order_rocketflow
  rocketflow saga discard 4711 --name order --event 0190b6a5-7c1e-7d3a-9b6e-3f5d2c1a0e4f --yes`
	flags.add(cmd)
	return cmd
}

// waitingFlags select waiting events of a key.
type waitingFlags struct {
	name, event string
}

func (f *waitingFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.name, "name", "", "only events for the saga of this name")
	cmd.Flags().StringVar(&f.event, "event", "", "only the event with this id, also if it still waits (default: all that failed or expired)")
}

// filter completes the selection. What is set to nothing, most likely from a variable that is empty, is refused.
func (f *waitingFlags) filter(cmd *cobra.Command, key string) (w saga.WaitingFilter, err error) {
	for name, value := range map[string]string{"name": f.name, "event": f.event} {
		if cmd.Flags().Changed(name) && value == "" {
			return w, usagef("--%s is empty", name)
		}
	}
	if key == "" {
		return w, usagef("KEY is empty")
	}
	w = saga.WaitingFilter{Saga: f.name, Key: key, Limit: 10_000}
	if f.event != "" {
		if w.EventID, err = uuid.Parse(f.event); err != nil || w.EventID == uuid.Nil {
			return w, usagef("--event %q is not the id of an event: want a UUID", f.event)
		}
	}
	return w, nil
}

// selected calls fn with the ids of the waiting events that the flags select.
func (f *waitingFlags) selected(cmd *cobra.Command, flags *reportFlags, key string, fn func(ctx context.Context, w *saga.WaitingEvents, ids []int64) error) error {
	filter, err := f.filter(cmd, key)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	pool, err := flags.openMigrated(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	events := saga.NewWaitingEvents(pool, flags.schema)
	list, err := events.List(ctx, filter)
	if err != nil {
		return err
	}
	var ids []int64
	for _, e := range list {
		if f.event != "" || e.Status == saga.WaitFailed || e.Status == saga.WaitExpired {
			ids = append(ids, e.ID)
		}
	}
	return fn(ctx, events, ids)
}

func newSagaRetryCommand(flags *reportFlags) *cobra.Command {
	var which waitingFlags
	cmd := &cobra.Command{
		Use:   "retry KEY",
		Short: "Have events that failed or expired applied again",
		Long: `Has the events of a key that failed, or that expired before a state took them, wait and be applied again, with all their
attempts and their time before them. Processes that run the saga take them within seconds. Prints how many.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return which.selected(cmd, flags, args[0], func(ctx context.Context, w *saga.WaitingEvents, ids []int64) error {
				n, err := w.Retry(ctx, ids...)
				if err != nil {
					return err
				}
				return printWaitingCount(cmd, flags, "retried", n)
			})
		},
	}
	which.add(cmd)
	return cmd
}

func newSagaDiscardCommand(flags *reportFlags) *cobra.Command {
	var which waitingFlags
	var yes bool
	cmd := &cobra.Command{
		Use:   "discard KEY",
		Short: "Delete events that failed or expired, without their effect, for good",
		Long: `Deletes the events of a key that failed, or that expired before a state took them; what waits behind them goes on. Prints
how many. Asks first, on a terminal; elsewhere it wants --yes.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes && !isTerminal(cmd.InOrStdin()) {
				return usagef("discarded events are gone: confirm with --yes")
			}
			return which.selected(cmd, flags, args[0], func(ctx context.Context, w *saga.WaitingEvents, ids []int64) error {
				question := "discard " + plural(len(ids), "waiting event") + " without their effect?"
				if !yes && len(ids) > 0 && !ask(cmd.InOrStdin(), cmd.ErrOrStderr(), question) {
					fmt.Fprintln(cmd.ErrOrStderr(), "nothing discarded")
					return errDeclined
				}
				n, err := w.Discard(ctx, ids...)
				if err != nil {
					return err
				}
				return printWaitingCount(cmd, flags, "discarded", n)
			})
		},
	}
	which.add(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "don't ask")
	return cmd
}

func printWaitingCount(cmd *cobra.Command, flags *reportFlags, done string, n int64) error {
	if flags.json {
		return printJSON(cmd.OutOrStdout(), map[string]int64{done: n})
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", done, plural(int(n), "waiting event"))
	return err
}
