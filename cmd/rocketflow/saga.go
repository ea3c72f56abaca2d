package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/operate"
)

const waitingEvent = "waiting event"

func newSagaCommand() *cobra.Command {
	var flags reportFlags
	cmd := parent("saga", "Retry or discard events that wait for sagas, and apply events to them",
		newSagaRetryCommand(&flags),
		newSagaDiscardCommand(&flags),
		newSagaApplyCommand(&flags),
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
	cmd.Flags().Lookup("event").Usage = "only the event with this id, whatever its status (default all that failed or expired)"
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
				n := 0
				if len(list) > 0 {
					if filter.Limit, err = confirm.discard(cmd, len(list), waitingEvent, filter.Limit); err != nil {
						return err
					}
					n, err = o.DiscardWaiting(ctx, filter)
				}
				return flags.printChanged(cmd.OutOrStdout(), "discarded", n, waitingEvent, err)
			})
		},
	}
	which.add(cmd)
	confirm.add(cmd)
	return cmd
}

func newSagaApplyCommand(flags *reportFlags) *cobra.Command {
	var event operate.SagaEvent
	var file string
	var confirm confirmFlag
	cmd := &cobra.Command{
		Use:   "apply KEY",
		Short: "Give a running saga an event that nobody else gets",
		Long: `Applies an event to one saga, such as one that another system has lost. A process that runs the saga applies it within
seconds if the state accepts it, or when a later state does; rocketflow inspect saga shows it until then. Each call
applies another event. Asks for confirmation; where there is no terminal, --yes is required.`,
		Example: `  rocketflow saga apply 4711 --name order --topic payments --type payment.received --body-file payment.json`,
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, arguments []string) (err error) {
			if event.Key = arguments[0]; event.Key == "" {
				return usagef("KEY is empty")
			}
			if err := required(cmd, "name", "topic", "type"); err != nil {
				return err
			}
			if event.Wait <= 0 {
				return usagef("--wait %v: want more than 0", event.Wait)
			}
			if err := confirm.possible(cmd, "an applied event can't be taken back"); err != nil {
				return err
			}
			if file != "" {
				if event.Body, err = readBody(cmd.InOrStdin(), file); err != nil {
					return err
				}
			}
			if err := confirm.confirm(cmd, fmt.Sprintf("apply %s to saga %s of %s?", event.Type, event.Saga, event.Key)); err != nil {
				return err
			}
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				id, err := o.ApplyToSaga(ctx, event)
				switch {
				case errors.Is(err, operate.ErrUnknownSaga):
					return fmt.Errorf("%w: see rocketflow inspect saga", err)
				case err != nil:
					return err
				}
				return flags.printDone(cmd.OutOrStdout(), map[string]string{"event_id": id.String()}, "event %s waits for saga %s of %s", id, cell(event.Saga, maxCell), cell(event.Key, maxCell))
			})
		},
	}
	cmd.Flags().StringVar(&event.Saga, "name", "", "the name of the saga (required)")
	cmd.Flags().StringVar(&event.Topic, "topic", "", "the topic of the event (required)")
	cmd.Flags().StringVar(&event.Type, "type", "", "the type of the event (required)")
	cmd.Flags().StringVar(&event.Subject, "subject", "", "the subject of the event (default KEY)")
	cmd.Flags().StringVar(&event.ContentType, "content-type", "", "the content type of the body (default application/json)")
	cmd.Flags().StringVar(&file, "body-file", "", "the file with the body; - is the standard input")
	cmd.Flags().DurationVar(&event.Wait, "wait", time.Hour, "how long it waits for a state that accepts it")
	confirm.add(cmd)
	return cmd
}
