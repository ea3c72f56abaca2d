package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/operate"
)

// pauseFlags name what is paused or resumed.
type pauseFlags struct{ target operate.PauseTarget }

func (f *pauseFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.target.Consumer, "consumer", "", "the consumer (required)")
	cmd.Flags().StringVar(&f.target.Topic, "topic", "", "only a handler (with --type) or a stream (with --subject) of this topic")
	cmd.Flags().StringVar(&f.target.Type, "type", "", "the type of event; empty for messages without a tag")
	cmd.Flags().StringVar(&f.target.Subject, "subject", "", "the subject of the stream")
}

// check reads the flags.
func (f *pauseFlags) check(cmd *cobra.Command) (operate.PauseTarget, error) {
	if err := required(cmd, "consumer"); err != nil {
		return f.target, err
	}
	topic, eventType, subject := cmd.Flags().Changed("topic"), cmd.Flags().Changed("type"), cmd.Flags().Changed("subject")
	switch {
	case !topic && !eventType && !subject:
		f.target.Kind = operate.PauseConsumer
	case !topic || f.target.Topic == "":
		return f.target, usagef("--topic is missing")
	case eventType == subject:
		return f.target, usagef("want either --type, for a handler, or --subject, for a stream")
	case eventType:
		f.target.Kind = operate.PauseHandler
	case f.target.Subject == "":
		return f.target, usagef("--subject is empty: give it a value")
	default:
		f.target.Kind = operate.PauseStream
	}
	return f.target, nil
}

func newPauseCommand() *cobra.Command {
	var flags reportFlags
	var which pauseFlags
	cmd := &cobra.Command{
		Use:   "pause",
		Short: "Pause a consumer, a handler or a stream",
		Long: `Pauses a consumer; with --topic and --type one of its handlers; with --topic and --subject a stream of it. Nothing is
lost, done twice or done in another order because of that, and no attempt is counted. The pause holds in all processes and
across restarts, until rocketflow resume. Handlers that run are not interrupted.

The events of a paused consumer wait at the broker: resume it before they are older than the broker keeps messages. Those
of a handler or a stream, and what is behind them in their streams, are parked in Postgres; the rest of the consumer goes
on.`,
		Example: `  rocketflow pause --consumer billing --reason "the bank is away" --schema order_rocketflow
  rocketflow pause --consumer billing --topic orders --type order.closed
  rocketflow pause --consumer billing --topic orders --subject 4711
  rocketflow pause list`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			target, err := which.check(cmd)
			if err != nil {
				return err
			}
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				paused, err := o.Pause(ctx, target)
				switch {
				case errors.Is(err, operate.ErrUnknownConsumer), errors.Is(err, operate.ErrUnknownHandler):
					return fmt.Errorf("%w: see rocketflow doctor, or the names in rocketflow inspect backlog", err)
				case err != nil:
					return err
				case !paused:
					return flags.printDone(cmd.OutOrStdout(), map[string]bool{"paused": false}, "%s is paused already", cell(target.String(), maxCell))
				}
				return flags.printDone(cmd.OutOrStdout(), map[string]bool{"paused": true}, "paused %s", cell(target.String(), maxCell))
			})
		},
	}
	cmd.AddCommand(newPauseListCommand(&flags))
	flags.addChange(cmd)
	which.add(cmd)
	return cmd
}

func newResumeCommand() *cobra.Command {
	var flags reportFlags
	var which pauseFlags
	cmd := &cobra.Command{
		Use:   "resume",
		Short: "End a pause",
		Long: `Resumes what rocketflow pause has paused, with the same flags. Processes go on within a second, with the events in their
order. rocketflow pause list shows what is paused.`,
		Example: "  rocketflow resume --consumer billing --schema order_rocketflow",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			target, err := which.check(cmd)
			if err != nil {
				return err
			}
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				resumed, err := o.Resume(ctx, target)
				switch {
				case err != nil:
					return err
				case flags.json && !resumed:
					return printJSON(cmd.OutOrStdout(), map[string]bool{"resumed": false})
				case !resumed:
					return fmt.Errorf("%s is not paused: see rocketflow pause list", cell(target.String(), maxCell))
				}
				return flags.printDone(cmd.OutOrStdout(), map[string]bool{"resumed": true}, "resumed %s", cell(target.String(), maxCell))
			})
		},
	}
	flags.addChange(cmd)
	which.add(cmd)
	return cmd
}

func newPauseListCommand(flags *reportFlags) *cobra.Command {
	var consumer string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List what is paused",
		Long: `Lists what is paused, since when, by whom and why. HELD counts the parked events, without those behind them in their
streams.`,
		Example: "  rocketflow pause list --schema order_rocketflow",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				list, err := o.Pauses(ctx, consumer)
				if err != nil {
					return err
				}
				return printList(ctx, cmd.OutOrStdout(), flags, o, list, "nothing is paused", printPauses)
			})
		},
	}
	cmd.Flags().StringVar(&consumer, "consumer", "", "only of this consumer")
	return cmd
}

func printPauses(w io.Writer, now time.Time, list []operate.Pause) error {
	t := newTable(w, "", "CONSUMER", "KIND", "TOPIC", "TYPE", "SUBJECT", "SINCE", "BY", "HELD", "REASON")
	for _, p := range list {
		held := "at the broker"
		if p.Kind != operate.PauseConsumer {
			held = count(p.Held)
		}
		t.row(p.Consumer, string(p.Kind), orDash(short(p.Topic)), orDash(short(p.Type)), orDash(short(p.Subject)), momentAgo(now, p.Since), short(p.Actor), held,
			orDash(short(p.Reason)))
	}
	return t.flush()
}
