package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/outbox"
)

func newOwedCommand() *cobra.Command {
	var flags reportFlags
	cmd := parent("owed", "List, retry, redirect or discard events that the broker rejects",
		newOwedListCommand(&flags),
		newOwedChangeCommand(&flags, "retry", "Have rejected events tried again at once", `Has events tried again by the next sweep instead of at their time. Of a topic that takes nothing one is tried
first. Prints how many events were made due.`, "retried", false),
		newOwedChangeCommand(&flags, "redirect", "Send rejected events to another topic", `Publishes events in the topic --to instead of their own. They keep id, type, subject and body, and take the next place of
their stream in that topic; in their own topic a rocketflow.discarded event stands in their place, which consumers step
over. Prints how many.`, "redirected", true),
		newOwedDiscardCommand(&flags),
	)
	cmd.Long = `An event that the broker rejects (its topic is missing, a right is missing, or it is too large) stays owed and is tried
again for ever. It doesn't hold up the events of other topics. The flags that select events must all match.`
	cmd.Example = `  rocketflow owed list --schema order_rocketflow    # the example order service
  rocketflow owed redirect --topic order --to orders
  rocketflow owed discard --event 0190b6a5-7c1e-7d3a-9b6e-3f5d2c1a0e4f --reason "too large, see ticket 4711"`
	flags.add(cmd)
	return cmd
}

// owedFlags select rejected events.
type owedFlags struct {
	outbox.OwedFilter
	event string
}

func (f *owedFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.Source, "source", "", "only events of this service")
	flags.StringVar(&f.Topic, "topic", "", "only events of this topic")
	flags.StringVar(&f.Type, "type", "", "only events of this type")
	flags.StringVar(&f.Subject, "subject", "", "only events of this aggregate")
	flags.StringVar(&f.event, "event", "", "only the event with this id")
}

func (f *owedFlags) addAll(cmd *cobra.Command, what string) {
	f.add(cmd)
	cmd.Flags().BoolVar(&f.All, "all", false, what+" all rejected events")
	limitFlag(cmd, &f.Limit, 0, "at most so many, the oldest first (default: no limit)")
}

// check completes the filter. A flag that is set to nothing would select everything: it is refused.
func (f *owedFlags) check(cmd *cobra.Command) (selective bool, err error) {
	for _, name := range []string{"source", "topic", "type", "subject", "event"} {
		if flag := cmd.Flags().Lookup(name); flag.Changed {
			selective = true
			if flag.Value.String() == "" {
				return false, usagef("--%s is empty", name)
			}
		}
	}
	if f.event != "" {
		if f.EventID, err = uuid.Parse(f.event); err != nil || f.EventID == uuid.Nil {
			return false, usagef("--event %q is not the id of an event: want a UUID", f.event)
		}
	}
	if f.Limit < 0 || f.Limit == 0 && cmd.Flags().Changed("limit") {
		return false, usagef("--limit %d: want at least 1", f.Limit)
	}
	return selective, nil
}

func (f *owedFlags) checkAll(cmd *cobra.Command) error {
	selective, err := f.check(cmd)
	switch {
	case err != nil:
		return err
	case selective && f.All:
		return usagef("--all and a filter exclude each other")
	case !selective && !f.All:
		return usagef("which events? Set a filter, or --all")
	}
	return nil
}

// owedReport is a rejected event as it is printed.
type owedReport struct {
	EventID    uuid.UUID `json:"event_id"`
	Type       string    `json:"type"`
	Source     string    `json:"source"`
	Topic      string    `json:"topic"`
	Subject    string    `json:"subject,omitempty"`
	Sequence   int64     `json:"sequence,omitempty"`
	Previous   int64     `json:"previous,omitempty"`
	RecordedAt time.Time `json:"recorded_at"`
	Size       int       `json:"size"`
	Reason     string    `json:"reason"`
	Attempts   int       `json:"attempts"`
	RejectedAt time.Time `json:"rejected_at"`
	NextAt     time.Time `json:"next_at,omitzero"`
}

func newOwedListCommand(flags *reportFlags) *cobra.Command {
	var filter owedFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List events that the broker rejects, the oldest first",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := filter.check(cmd); err != nil {
				return err
			}
			return flags.owed(cmd.Context(), func(ctx context.Context, o *outbox.Owed) error {
				list, err := o.List(ctx, filter.OwedFilter)
				if err != nil {
					return err
				}
				if flags.json {
					reports := []owedReport{}
					for _, r := range list {
						e := r.Event
						reports = append(reports, owedReport{
							e.ID, e.Type, e.Source, e.Topic, e.Subject, e.Sequence, e.Previous, e.Time, r.Size, r.Reason, r.Attempts, r.RejectedAt, r.NextAt,
						})
					}
					return printJSON(cmd.OutOrStdout(), reports)
				}
				return printOwed(cmd.OutOrStdout(), list, len(list) == filter.Limit)
			})
		},
	}
	filter.add(cmd)
	limitFlag(cmd, &filter.Limit, 100, "at most so many")
	return cmd
}

func printOwed(w io.Writer, list []outbox.OwedEvent, more bool) error {
	if len(list) > 0 {
		t := newTable(w, "", "EVENT", "TYPE", "TOPIC", "SUBJECT", "BYTES", "REJECTED", "ATTEMPTS", "REASON")
		for _, r := range list {
			e := r.Event
			t.row(e.ID.String(), short(e.Type), short(e.Topic), orDash(short(e.Subject)), strconv.Itoa(r.Size), r.RejectedAt.UTC().Format(time.RFC3339),
				strconv.Itoa(r.Attempts), short(r.Reason))
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	note := ""
	if more {
		note = " (--limit; there may be more)"
	}
	_, err := fmt.Fprintln(w, plural(len(list), "rejected event")+note)
	return err
}

func newOwedChangeCommand(flags *reportFlags, use, summary, long, done string, redirect bool) *cobra.Command {
	var filter owedFlags
	var to string
	cmd := &cobra.Command{
		Use: use, Short: summary, Long: long,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := filter.checkAll(cmd); err != nil {
				return err
			}
			if redirect && to == "" {
				return usagef("to which topic? Set --to")
			}
			return flags.owed(cmd.Context(), func(ctx context.Context, o *outbox.Owed) (err error) {
				var n int
				if redirect {
					n, err = o.Redirect(ctx, filter.OwedFilter, to)
				} else {
					n, err = o.Retry(ctx, filter.OwedFilter)
				}
				return flags.printOwedCount(cmd.OutOrStdout(), done, n, err)
			})
		},
	}
	filter.addAll(cmd, use)
	if redirect {
		cmd.Flags().StringVar(&to, "to", "", "the topic")
	}
	return cmd
}

func newOwedDiscardCommand(flags *reportFlags) *cobra.Command {
	var filter owedFlags
	var reason string
	var yes bool
	cmd := &cobra.Command{
		Use:   "discard",
		Short: "Give rejected events up, for good",
		Long: `Gives events up. In an ordered stream a rocketflow.discarded event stands in the place of each, with --reason, which consumers
step over. As they were the events are kept in the table outbox_discarded as long as delivered ones are. Prints how many.
Asks first, on a terminal; elsewhere it wants --yes.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := filter.checkAll(cmd); err != nil {
				return err
			}
			if !yes && !isTerminal(cmd.InOrStdin()) {
				return usagef("discarded events are never sent: confirm with --yes")
			}
			return flags.owed(cmd.Context(), func(ctx context.Context, o *outbox.Owed) error {
				if !yes {
					list, err := o.List(ctx, filter.OwedFilter)
					if err != nil {
						return err
					}
					if len(list) > 0 && !ask(cmd.InOrStdin(), cmd.ErrOrStderr(), "discard "+plural(len(list), "rejected event")+" or more?") {
						fmt.Fprintln(cmd.ErrOrStderr(), "nothing discarded")
						return errDeclined
					}
				}
				n, err := o.Discard(ctx, filter.OwedFilter, reason)
				return flags.printOwedCount(cmd.OutOrStdout(), "discarded", n, err)
			})
		},
	}
	filter.addAll(cmd, "discard")
	cmd.Flags().BoolVar(&yes, "yes", false, "don't ask")
	cmd.Flags().StringVar(&reason, "reason", "", "why; consumers of the stream are told")
	return cmd
}

// owed calls fn with the rejected events of the schema.
func (f *reportFlags) owed(ctx context.Context, fn func(context.Context, *outbox.Owed) error) error {
	pool, err := f.openMigrated(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	return fn(ctx, outbox.NewOwed(pool, f.schema))
}

func (f *reportFlags) printOwedCount(w io.Writer, done string, n int, err error) error {
	if err != nil {
		if n > 0 {
			err = fmt.Errorf("%w (after %d were %s)", err, n, done)
		}
		return err
	}
	if f.json {
		return printJSON(w, map[string]int{done: n})
	}
	_, err = fmt.Fprintf(w, "%s %s\n", done, plural(n, "rejected event"))
	return err
}
