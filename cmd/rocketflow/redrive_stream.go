package main

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
)

// needed reads the flags of a command that all have to be set.
func needed(cmd *cobra.Command, names ...string) error {
	for _, name := range names {
		if cmd.Flags().Lookup(name).Value.String() == "" {
			return usagef("--%s is missing", name)
		}
	}
	return nil
}

func newRedriveAcceptCommand(flags *reportFlags) *cobra.Command {
	var consumer string
	cmd := &cobra.Command{
		Use:   "accept EVENT",
		Short: "Have an event handled whose predecessor is lost",
		Long: `Lets an event run that waits behind a gap, the first of its stream, without its predecessor. Should the predecessor come
after all, it becomes a dead letter that holds nobody. First look whether it can be had: ` + "`rocketflow resend`" + ` at the service
that published it.`,
		Example: `  rocketflow redrive waiting --consumer billing
  rocketflow redrive accept --consumer billing 0190b6a5-7c1e-7d3a-9b6e-3f5d2c1a0e4f`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			if err := needed(cmd, "consumer"); err != nil {
				return err
			}
			id, err := uuid.Parse(arguments[0])
			if err != nil {
				return usagef("%.80q is not the id of an event: want a UUID", arguments[0])
			}
			return flags.deadLetters(cmd.Context(), func(ctx context.Context, d *handlers.DeadLetters) error {
				accepted, err := d.Accept(ctx, consumer, id)
				switch {
				case err != nil:
					return err
				case !accepted:
					return fmt.Errorf("consumer %s has no event %s that waits behind a gap as the first of its stream: see `rocketflow redrive waiting`", consumer, id)
				case flags.json:
					return printJSON(cmd.OutOrStdout(), map[string]bool{"accepted": true})
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "accepted %s\n", id)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&consumer, "consumer", "", "the consumer for which it waits (required)")
	return cmd
}

func newRedriveRetireCommand(flags *reportFlags) *cobra.Command {
	var consumer, topic, eventType string
	var yes bool
	cmd := &cobra.Command{
		Use:   "retire",
		Short: "Say that a consumer no longer handles a type of event",
		Long: `What a consumer handles is recorded when it starts. A process that lacks a recorded handler leaves its events to one that
has it, and where none has, they wait, with what is behind them in their streams. Retire a handler that is gone for good:
its events are stepped over then. Whoever starts with it records it again.`,
		Example: `  rocketflow redrive retire --consumer billing --topic orders --type order.closed`,
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needed(cmd, "consumer", "topic", "type"); err != nil {
				return err
			}
			if !yes {
				if !isTerminal(cmd.InOrStdin()) {
					return usagef("the events of a retired handler are stepped over: confirm with --yes")
				}
				question := fmt.Sprintf("step over all events of type %s on topic %s that consumer %s has not handled?", eventType, topic, consumer)
				if !ask(cmd.InOrStdin(), cmd.ErrOrStderr(), question) {
					fmt.Fprintln(cmd.ErrOrStderr(), "nothing retired")
					return errDeclined
				}
			}
			pool, err := flags.openMigrated(cmd.Context())
			if err != nil {
				return err
			}
			defer pool.Close()
			waited, retired, err := handlers.Retire(cmd.Context(), pool, flags.schema, consumer, topic, eventType)
			switch {
			case err != nil:
				return err
			case !retired && waited == 0:
				return fmt.Errorf("consumer %s has no handler of type %s on topic %s recorded", consumer, eventType, topic)
			case flags.json:
				return printJSON(cmd.OutOrStdout(), map[string]int64{"waited": waited})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "retired; %s stepped over\n", plural(int(waited), "waiting event"))
			return err
		},
	}
	cmd.Flags().StringVar(&consumer, "consumer", "", "the consumer (required)")
	cmd.Flags().StringVar(&topic, "topic", "", "the topic (required)")
	cmd.Flags().StringVar(&eventType, "type", "", "the type (required)")
	cmd.Flags().BoolVar(&yes, "yes", false, "don't ask")
	return cmd
}

func newRedriveResetCommand(flags *reportFlags) *cobra.Command {
	var consumer string
	var stream rocketflow.Stream
	var to int64
	cmd := &cobra.Command{
		Use:   "reset",
		Short: "Set how far a consumer is in a stream",
		Long: `Sets a consumer's position in a stream to a sequence: events after it run when they come, or come again (` + "`rocketflow resend`" + `);
those up to it count as handled. For a stream whose position a mistaken or forged event has moved ahead, so that its
genuine events count as duplicates. ` + "`rocketflow inspect stream SUBJECT`" + ` shows sequences and positions.`,
		Example: `  rocketflow redrive reset --consumer billing --source shop --topic orders --subject 4711 --to 1764355200000000`,
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needed(cmd, "consumer", "source", "topic", "subject"); err != nil {
				return err
			}
			if !cmd.Flags().Changed("to") || to < 0 {
				return usagef("--to: want the sequence of the last event that counts as handled, or 0 for none")
			}
			pool, err := flags.openMigrated(cmd.Context())
			if err != nil {
				return err
			}
			defer pool.Close()
			found, err := handlers.ResetPosition(cmd.Context(), pool, flags.schema, consumer, stream, to)
			switch {
			case err != nil:
				return err
			case !found:
				return fmt.Errorf("consumer %s has no position in stream %s/%s/%s", consumer, stream.Source, stream.Topic, stream.Subject)
			case flags.json:
				return printJSON(cmd.OutOrStdout(), map[string]int64{"sequence": to})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "consumer %s is at %d in that stream\n", consumer, to)
			return err
		},
	}
	cmd.Flags().StringVar(&consumer, "consumer", "", "the consumer (required)")
	cmd.Flags().StringVar(&stream.Source, "source", "", "the service that publishes the stream (required)")
	cmd.Flags().StringVar(&stream.Topic, "topic", "", "the topic (required)")
	cmd.Flags().StringVar(&stream.Subject, "subject", "", "the aggregate's id (required)")
	cmd.Flags().Int64Var(&to, "to", 0, "the sequence of the last event that counts as handled (required)")
	return cmd
}
