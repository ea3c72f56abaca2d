package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/operate"
)

const rejectedEvent = "rejected event"

// rejectedFlags are the flags that select rejected events.
var rejectedFlags = []string{"source", "topic", "type", "subject", "event"}

func newOwedCommand() *cobra.Command {
	var flags reportFlags
	cmd := parent("owed", "List, retry, redirect or discard owed events that the broker rejects",
		newOwedListCommand(&flags),
		newOwedRetryCommand(&flags),
		newOwedRedirectCommand(&flags),
		newOwedDiscardCommand(&flags),
	)
	cmd.Long = `An event that the broker rejects, because its topic or a right is missing or because it is too large, stays owed. The
outbox retries it until the broker takes it, or until it is redirected or discarded. It doesn't delay events of other
topics.

An event is selected if it matches all of the flags that are set.`
	cmd.Example = `  rocketflow owed list --schema order_rocketflow    # the example order service
  rocketflow owed redirect --topic order --to orders
  rocketflow owed discard --event 0190b6a5-7c1e-7d3a-9b6e-3f5d2c1a0e4f --reason "too large, see ticket 4711"`
	flags.addChange(cmd)
	return cmd
}

func newOwedListCommand(flags *reportFlags) *cobra.Command {
	var filter eventFlags
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List rejected events, the oldest first, and rejected topics",
		Example: "  rocketflow owed list --topic orders",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := filter.check(cmd, time.Now()); err != nil {
				return err
			}
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				list, err := o.RejectedEvents(ctx, filter.rejected())
				if err != nil {
					return err
				}
				if flags.json {
					return printJSON(cmd.OutOrStdout(), list)
				}
				if err := printRejected(cmd.OutOrStdout(), list); err != nil {
					return err
				}
				if err := printListed(cmd.OutOrStdout(), len(list), rejectedEvent, filter.limit); err != nil {
					return err
				}
				topics, err := o.RejectedTopics(ctx)
				if err != nil {
					return err
				}
				return printRejectedTopics(cmd.OutOrStdout(), topics)
			})
		},
	}
	filter.addList(cmd, rejectedFlags...)
	return cmd
}

func printRejected(w io.Writer, list []operate.RejectedEvent) error {
	if len(list) == 0 {
		return nil
	}
	t := newTable(w, "", "EVENT", "TYPE", "TOPIC", "SUBJECT", "BYTES", "REJECTED", "ATTEMPTS", "REASON")
	for _, r := range list {
		e := r.Event
		t.row(e.ID.String(), short(e.Type), short(e.Topic), orDash(short(e.Subject)), strconv.Itoa(r.Size), moment(r.RejectedAt),
			strconv.Itoa(r.Attempts), short(r.Reason))
	}
	return t.flush()
}

func printRejectedTopics(w io.Writer, list []operate.RejectedTopic) error {
	if len(list) == 0 {
		return nil
	}
	fmt.Fprintln(w, "rejected topics (the broker rejects all their events; one event of each is tried at NEXT)")
	t := newTable(w, "  ", "TOPIC", "EVENTS", "REJECTED", "ATTEMPTS", "NEXT", "REASON")
	for _, r := range list {
		t.row(short(r.Topic), count(r.Events), moment(r.RejectedAt), strconv.Itoa(r.Attempts), moment(r.NextAt), short(r.Reason))
	}
	return t.flush()
}

func newOwedRetryCommand(flags *reportFlags) *cobra.Command {
	var filter eventFlags
	cmd := &cobra.Command{
		Use:   "retry",
		Short: "Make rejected events due at once",
		Long: `Makes rejected events due: the next sweep sends them, instead of at the time of their next attempt. Of a topic whose
events the broker rejects, one is tried first. Prints how many events were made due.`,
		Example: "  rocketflow owed retry --topic orders",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := filter.checkChange(cmd, time.Now()); err != nil {
				return err
			}
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				n, err := o.RetryRejected(ctx, filter.rejected())
				return flags.printChanged(cmd.OutOrStdout(), "retried", n, rejectedEvent, err)
			})
		},
	}
	filter.addChange(cmd, "retry all rejected events", rejectedFlags...)
	return cmd
}

func newOwedRedirectCommand(flags *reportFlags) *cobra.Command {
	var filter eventFlags
	var to string
	cmd := &cobra.Command{
		Use:   "redirect",
		Short: "Move rejected events to another topic",
		Long: `Moves events to the topic --to. They keep id, type, subject and body, and take the next place of their stream in that
topic. In their own topic an event of type ` + operate.DiscardedType + ` replaces each; consumers skip it. Prints how many.`,
		Example: "  rocketflow owed redirect --topic order --to orders",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := filter.checkChange(cmd, time.Now()); err != nil {
				return err
			}
			if err := required(cmd, "to"); err != nil {
				return err
			}
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				n, err := o.RedirectRejected(ctx, filter.rejected(), to)
				return flags.printChanged(cmd.OutOrStdout(), "redirected", n, rejectedEvent, err)
			})
		},
	}
	filter.addChange(cmd, "redirect all rejected events", rejectedFlags...)
	cmd.Flags().StringVar(&to, "to", "", "the topic to move the events to (required)")
	return cmd
}

func newOwedDiscardCommand(flags *reportFlags) *cobra.Command {
	var filter eventFlags
	var confirm confirmFlag
	cmd := &cobra.Command{
		Use:   "discard",
		Short: "Give up rejected events: they are never sent",
		Long: `Gives up rejected events. In an ordered stream an event of type ` + operate.DiscardedType + ` with --reason replaces each;
consumers skip it. The discarded events are kept in the table outbox_discarded as long as acknowledged ones are.
Prints how many. Asks for confirmation; where there is no terminal, --yes is required.`,
		Example: `  rocketflow owed discard --event 0190b6a5-7c1e-7d3a-9b6e-3f5d2c1a0e4f --reason "too large, see ticket 4711"`,
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := filter.checkChange(cmd, time.Now()); err != nil {
				return err
			}
			if err := confirm.possible(cmd, "discarded events are never sent"); err != nil {
				return err
			}
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				list, err := o.RejectedEvents(ctx, filter.rejected())
				if err != nil {
					return err
				}
				n := 0
				if len(list) > 0 {
					if filter.limit, err = confirm.discard(cmd, len(list), rejectedEvent, filter.limit); err != nil {
						return err
					}
					n, err = o.DiscardRejected(ctx, filter.rejected(), flags.reason)
				}
				return flags.printChanged(cmd.OutOrStdout(), "discarded", n, rejectedEvent, err)
			})
		},
	}
	filter.addChange(cmd, "discard all rejected events", rejectedFlags...)
	confirm.add(cmd)
	return cmd
}
