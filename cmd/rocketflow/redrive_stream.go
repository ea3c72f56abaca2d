package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/operate"
)

func newRedriveAcceptCommand(flags *reportFlags) *cobra.Command {
	var consumer string
	cmd := &cobra.Command{
		Use:   "accept EVENT",
		Short: "Make an event due although its predecessor is lost",
		Long: `Makes the first event of a stream that waits behind a gap due without its predecessor. Should the predecessor come after
all, it becomes a dead letter that no event waits for. First try to get the predecessor: run rocketflow resend on the
schema of the service that published it.`,
		Example: `  rocketflow redrive parked --consumer billing
  rocketflow redrive accept --consumer billing 0190b6a5-7c1e-7d3a-9b6e-3f5d2c1a0e4f`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			if err := required(cmd, "consumer"); err != nil {
				return err
			}
			id, err := parseEventID(arguments[0])
			if err != nil {
				return err
			}
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				err := o.AcceptGap(ctx, consumer, id)
				switch {
				case errors.Is(err, operate.ErrNoGap):
					return fmt.Errorf("consumer %s has no event %s that waits behind a gap as the first of its stream: see rocketflow redrive parked", consumer, id)
				case err != nil:
					return err
				}
				return flags.printDone(cmd.OutOrStdout(), map[string]bool{"accepted": true}, "accepted %s", id)
			})
		},
	}
	cmd.Flags().StringVar(&consumer, "consumer", "", "the consumer for which the event waits (required)")
	return cmd
}

func newRedriveRetireCommand(flags *reportFlags) *cobra.Command {
	var handler operate.Handler
	var confirm confirmFlag
	cmd := &cobra.Command{
		Use:   "retire",
		Short: "Record that a consumer no longer handles a type of event",
		Long: `A consumer records what it handles when it starts. A process without a recorded handler leaves its events to a process
that has it. Where no process has it, they wait, and so do the later events of their streams. Retire a handler that was
removed for good: the consumer skips its events then. A process that starts with the handler records it again. Asks
for confirmation; where there is no terminal, --yes is required.`,
		Example: `  rocketflow redrive retire --consumer billing --topic orders --type order.closed`,
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "consumer", "topic"); err != nil {
				return err
			}
			if !cmd.Flags().Changed("type") {
				return usagef("--type is missing")
			}
			if err := confirm.possible(cmd, "the events of a retired handler are skipped"); err != nil {
				return err
			}
			question := fmt.Sprintf("skip all events of type %s on topic %s that consumer %s has not handled?", handler.Type, handler.Topic, handler.Consumer)
			if err := confirm.confirm(cmd, question); err != nil {
				return err
			}
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				waited, err := o.RetireHandler(ctx, handler)
				switch {
				case errors.Is(err, operate.ErrUnknownHandler):
					return fmt.Errorf("consumer %s has no record of a handler for type %s on topic %s: nothing was changed", handler.Consumer, handler.Type, handler.Topic)
				case err != nil:
					return err
				}
				return flags.printDone(cmd.OutOrStdout(), map[string]int{"waited": waited}, "retired; %s skipped", plural(waited, "parked event"))
			})
		},
	}
	cmd.Flags().StringVar(&handler.Consumer, "consumer", "", "the consumer (required)")
	cmd.Flags().StringVar(&handler.Topic, "topic", "", "the topic (required)")
	cmd.Flags().StringVar(&handler.Type, "type", "", "the type of event; empty for messages without a tag (required)")
	confirm.add(cmd)
	return cmd
}

func newRedriveResetCommand(flags *reportFlags) *cobra.Command {
	var consumer string
	var stream rocketflow.Stream
	var to int64
	cmd := &cobra.Command{
		Use:   "reset",
		Short: "Set a consumer's position in a stream",
		Long: `Sets a consumer's position in a stream to a sequence. Events after it are handled when they come, or come again by
rocketflow resend. Events up to it count as handled. Use it for a stream whose position a wrong or forged event has moved,
so that genuine events count as duplicates. rocketflow inspect stream SUBJECT shows sequences and positions.`,
		Example: `  rocketflow redrive reset --consumer billing --source shop --topic orders --subject 4711 --to 1764355200000000`,
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "consumer", "source", "topic", "subject"); err != nil {
				return err
			}
			if !cmd.Flags().Changed("to") || to < 0 {
				return usagef("--to: want the sequence of the last event that counts as handled, or 0 for none")
			}
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				err := o.ResetPosition(ctx, consumer, stream, to)
				switch {
				case errors.Is(err, operate.ErrUnknownStream):
					return fmt.Errorf("consumer %s has no position in stream %s/%s/%s: see rocketflow inspect stream", consumer, stream.Source, stream.Topic, stream.Subject)
				case err != nil:
					return err
				}
				return flags.printDone(cmd.OutOrStdout(), map[string]int64{"sequence": to}, "the position of consumer %s is %d", consumer, to)
			})
		},
	}
	cmd.Flags().StringVar(&consumer, "consumer", "", "the consumer (required)")
	cmd.Flags().StringVar(&stream.Source, "source", "", "the service that publishes the stream (required)")
	cmd.Flags().StringVar(&stream.Topic, "topic", "", "the topic (required)")
	cmd.Flags().StringVar(&stream.Subject, "subject", "", "the subject (required)")
	cmd.Flags().Int64Var(&to, "to", 0, "the sequence of the last event that counts as handled (required)")
	return cmd
}
