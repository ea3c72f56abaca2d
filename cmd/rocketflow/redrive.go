package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/handlers"
)

// errDeclined ends a command with exitFailure and no message: whoever declined knows.
var errDeclined = &statusError{exitFailure}

func newRedriveCommand() *cobra.Command {
	var flags reportFlags
	cmd := parent("redrive", "List, retry or discard the events that handlers gave up, and unblock streams",
		newRedriveListCommand(&flags, "list", "List dead letters, the oldest first", "dead letter", (*handlers.DeadLetters).List),
		newRedriveListCommand(&flags, "waiting", "List what is parked for its next attempt or behind a gap, the oldest first", "waiting event", (*handlers.DeadLetters).Waiting),
		newRedriveRetryCommand(&flags),
		newRedriveDiscardCommand(&flags),
		newRedriveAcceptCommand(&flags),
		newRedriveRetireCommand(&flags),
		newRedriveResetCommand(&flags),
	)
	cmd.Long = `A dead letter is an event whose handler failed for good. It stays until it is retried or discarded, and holds back the
events of its stream. The flags that select events must all match.`
	cmd.Example = `  rocketflow redrive list --schema order_rocketflow    # the example order service
  rocketflow redrive retry --consumer billing --schema order_rocketflow
  rocketflow redrive discard --event 0190b6a5-7c1e-7d3a-9b6e-3f5d2c1a0e4f`
	flags.add(cmd)
	return cmd
}

// filterFlags select parked events.
type filterFlags struct {
	handlers.Filter
	event string
}

func (f *filterFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.Consumer, "consumer", "", "only events of this consumer")
	flags.StringVar(&f.Source, "source", "", "only events of this service")
	flags.StringVar(&f.Topic, "topic", "", "only events of this topic")
	flags.StringVar(&f.Type, "type", "", "only events of this type")
	flags.StringVar(&f.Subject, "subject", "", "only events of this aggregate")
	flags.StringVar(&f.event, "event", "", "only the event with this id")
}

// check completes the filter. A flag that is set to nothing, most likely from a variable that is empty, would select
// everything: it is refused.
func (f *filterFlags) check(cmd *cobra.Command) (selective bool, err error) {
	for _, name := range []string{"consumer", "source", "topic", "type", "subject", "event"} {
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

// addAll adds the flags of commands that change something.
func (f *filterFlags) addAll(cmd *cobra.Command, what string) {
	f.add(cmd)
	cmd.Flags().BoolVar(&f.All, "all", false, what+" all dead letters")
	limitFlag(cmd, &f.Limit, 0, "at most so many, the oldest first (default: no limit)")
}

// checkAll is check for commands that change something: what they change has to be said.
func (f *filterFlags) checkAll(cmd *cobra.Command) error {
	selective, err := f.check(cmd)
	switch {
	case err != nil:
		return err
	case selective && f.All:
		return usagef("--all and a filter exclude each other")
	case !selective && !f.All:
		return usagef("which dead letters? Set a filter, or --all")
	}
	return nil
}

func newRedriveRetryCommand(flags *reportFlags) *cobra.Command {
	var filter filterFlags
	cmd := &cobra.Command{
		Use:   "retry",
		Short: "Have dead letters handled again, with all their attempts before them",
		Long: `Makes dead letters due; processes that run their consumer take them within seconds. Prints how many. One whose handler
fails again to the last attempt is a dead letter once more.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := filter.checkAll(cmd); err != nil {
				return err
			}
			return flags.deadLetters(cmd.Context(), func(ctx context.Context, d *handlers.DeadLetters) error {
				n, err := d.Retry(ctx, filter.Filter)
				if err != nil {
					return err
				}
				return flags.printCount(cmd.OutOrStdout(), "retried", n)
			})
		},
	}
	filter.addAll(cmd, "retry")
	return cmd
}

func newRedriveDiscardCommand(flags *reportFlags) *cobra.Command {
	var filter filterFlags
	var yes bool
	cmd := &cobra.Command{
		Use:   "discard",
		Short: "Settle dead letters without their effect, for good",
		Long: `Counts dead letters as handled though they had no effect, and deletes them; what waits behind them goes on. Prints how
many. Asks first, on a terminal; elsewhere it wants --yes.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := filter.checkAll(cmd); err != nil {
				return err
			}
			if !yes && !isTerminal(cmd.InOrStdin()) {
				return usagef("discarded events are gone: confirm with --yes")
			}
			return flags.deadLetters(cmd.Context(), func(ctx context.Context, d *handlers.DeadLetters) error {
				if !yes {
					question, err := discardQuestion(ctx, d, filter.Filter)
					if err != nil {
						return err
					}
					if question != "" && !ask(cmd.InOrStdin(), cmd.ErrOrStderr(), question) {
						fmt.Fprintln(cmd.ErrOrStderr(), "nothing discarded")
						return errDeclined
					}
				}
				n, err := d.Discard(ctx, filter.Filter)
				if err != nil {
					if n > 0 {
						err = fmt.Errorf("%w (after %d were discarded)", err, n)
					}
					return err
				}
				return flags.printCount(cmd.OutOrStdout(), "discarded", n)
			})
		},
	}
	filter.addAll(cmd, "discard")
	cmd.Flags().BoolVar(&yes, "yes", false, "don't ask")
	return cmd
}

// discardQuestion is empty if there is nothing to discard.
func discardQuestion(ctx context.Context, d *handlers.DeadLetters, f handlers.Filter) (string, error) {
	list, err := d.List(ctx, f)
	if err != nil || len(list) == 0 {
		return "", err
	}
	many := plural(len(list), "dead letter")
	if f.Limit == 0 && len(list) == listMost {
		many += " or more"
	}
	return "discard " + many + " without their effect?", nil
}

// ask is true for a yes.
func ask(in io.Reader, out io.Writer, question string) bool {
	fmt.Fprintf(out, "%s [y/N] ", question)
	answer, _ := bufio.NewReader(in).ReadString('\n') // no answer is a no
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true
	}
	return false
}

// isTerminal: a device that gives characters, and not the one that never does.
func isTerminal(in io.Reader) bool {
	file, ok := in.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// deadLetters calls fn with the parked events of the schema.
func (f *reportFlags) deadLetters(ctx context.Context, fn func(context.Context, *handlers.DeadLetters) error) error {
	pool, err := f.openMigrated(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	return fn(ctx, handlers.NewDeadLetters(pool, f.schema))
}

func (f *reportFlags) printCount(w io.Writer, done string, n int) error {
	if f.json {
		return printJSON(w, map[string]int{done: n})
	}
	_, err := fmt.Fprintf(w, "%s %s\n", done, plural(n, "dead letter"))
	return err
}
