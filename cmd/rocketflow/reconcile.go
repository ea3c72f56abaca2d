package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/operate"
)

// reconcileFlags are the flags of reconcile.
type reconcileFlags struct {
	systemFlags
	config operate.ReconcileConfig
	expect []string
	watch  bool
	every  time.Duration
}

func newReconcileCommand() *cobra.Command {
	var f reconcileFlags
	cmd := &cobra.Command{
		Use:   "reconcile",
		Short: "Compare what was published with what consumers have handled, and find what is missing",
		Long: `Compares the events of all outboxes with what the consumers of all services have recorded: handled, parked, dead letters,
owed, unread in a queue, and missing. Missing are:
  lost        the broker confirmed the event and doesn't hold it any more, and the consumer has no record of it
  expired     the same, but messages of that age have expired: a record of its handling may have been deleted
  passed      the consumer's group has read past it, and its stream's position says that it was not handled
  unrecorded  the same without a position: a record was deleted, and its handler has probably run
--mend sends those that are lost or passed again. The broker is asked if --namesrv or ROCKETMQ_NAMESRV is set; without it
unread and missing events are counted as unknown, and so are those that it was not asked about within 2 minutes: reconcile
again, which goes on. A consumer that has never started has left no trace: name it with --expect.
Use --mend while all masters are there: the name servers don't list a master that is away, so what is unread on it looks
lost to a command that is started meanwhile. Sent again, it is handled once all the same.
Cost: a read of each event of the period by its key, and of each record of it. Of each consumer up to 20,000 events that
are not handled are looked at; the others are counted as unread or unknown.
The exit code is 1 if something is missing and was not sent again, or can't be known, schemas that can't be read included.`,
		Example: `  rocketflow reconcile --since 2h
  rocketflow reconcile --mend --expect mailing=orders
  rocketflow reconcile --watch --database "$ORDERS_URL" --database "$PAYMENTS_URL"`,
		Args: args(cobra.NoArgs),
		RunE: f.run,
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.DurationVar(&f.config.Since, "since", time.Hour, "how far back to go")
	flags.DurationVar(&f.config.Grace, "grace", time.Minute, "leave out events that are younger")
	flags.StringArrayVar(&f.expect, "expect", nil, "a consumer that must read a topic: consumer=topic; may be repeated")
	flags.BoolVar(&f.config.Mend, "mend", false, "send lost events again")
	flags.IntVar(&f.config.Limit, "limit", 20, "list at most this many missing events")
	flags.BoolVar(&f.watch, "watch", false, "repeat until interrupted, and print a line where something has changed")
	flags.DurationVar(&f.every, "every", 10*time.Second, "pause of --watch")
	return cmd
}

func (f *reconcileFlags) run(cmd *cobra.Command, _ []string) error {
	for _, e := range f.expect {
		consumer, topic, ok := strings.Cut(e, "=")
		if !ok || consumer == "" || topic == "" {
			return usagef("--expect %q: want consumer=topic", e)
		}
		f.config.Expect = append(f.config.Expect, operate.ExpectedConsumer{Consumer: consumer, Topic: topic})
	}
	switch {
	case f.config.Grace < 10*time.Second:
		return usagef("--grace %v: want at least 10s", f.config.Grace)
	case f.config.Since <= f.config.Grace:
		return usagef("--since %v: want more than --grace, %v", f.config.Since, f.config.Grace)
	case f.every < time.Second:
		return usagef("--every %v: want at least 1s", f.every)
	case f.config.Mend && !f.broker.named():
		return usagef("--mend: no broker is named: set --namesrv or ROCKETMQ_NAMESRV")
	}
	if err := checkLimit(f.config.Limit); err != nil {
		return err
	}
	return f.with(cmd.Context(), func(ctx context.Context, y *operate.System, problem error) error {
		if f.config.Mend && problem != nil {
			return problem
		}
		if f.watch {
			return f.repeat(ctx, cmd.OutOrStdout(), y, problem)
		}
		x, err := y.Reconcile(ctx, f.config)
		if err != nil {
			return err
		}
		x.Broker = f.brokerNote(x.Broker, problem)
		if f.json {
			err = printJSON(cmd.OutOrStdout(), x)
		} else {
			err = printReconciliation(cmd.OutOrStdout(), x, f.mendCommand())
		}
		if err == nil && !isComplete(x) {
			return &statusError{exitFailure}
		}
		return err
	})
}

// isComplete reports whether nothing is missing but what was sent again, and everything is known.
func isComplete(x *operate.Reconciliation) bool {
	_, _, _, missing, unknown := x.Totals()
	for i := range x.Consumers {
		missing -= x.Consumers[i].Mended
	}
	return missing+unknown+len(x.Unread) == 0 && !x.Partial
}

// repeat prints the totals whenever they have changed, and everything when something is missing.
func (f *reconcileFlags) repeat(ctx context.Context, w io.Writer, y *operate.System, problem error) error {
	watch := y.Watch(f.config)
	last := ""
	var failed error
	background.Loop{Clock: clock.System{}}.Run(ctx, func(ctx context.Context) time.Duration {
		x, err := watch.Next(ctx)
		if err != nil {
			if ctx.Err() == nil {
				fmt.Fprintf(w, "%s  %s\n", moment(time.Now()), cell(err.Error(), maxCell))
			}
			return f.every
		}
		x.Broker = f.brokerNote(x.Broker, problem)
		if f.json {
			failed = cmp.Or(failed, printJSON(w, x))
			return f.every
		}
		if line := totals(x); line != last {
			last = line
			fmt.Fprintf(w, "%s  %s\n", moment(x.To), line)
			if _, _, _, missing, _ := x.Totals(); missing > 0 {
				failed = cmp.Or(failed, printReconciliation(w, x, f.mendCommand()))
			}
		}
		return f.every
	})
	return failed
}

// totals is a reconciliation on a line.
func totals(x *operate.Reconciliation) string {
	published, handled, waiting, missing, unknown := x.Totals()
	line := fmt.Sprintf("%d published; of each for its consumers %d handled, %d waiting, %d missing", published, handled, waiting, missing)
	if unknown > 0 {
		line += fmt.Sprintf(", %d not known", unknown)
	}
	if x.Partial {
		line += "; not all are compared: a consumer has not handled more than 20,000, or a transaction that has been open for long holds newer ones back"
	}
	if len(x.Unread) > 0 {
		line += "; not read: " + plural(len(x.Unread), "schema")
	}
	if x.Mended > 0 {
		line += fmt.Sprintf("; sent again: %d", x.Mended)
	}
	return line
}

// mendCommand returns the command line that mends, without what is in the environment: --database may have a password.
func (f *reconcileFlags) mendCommand() string {
	words := []string{"rocketflow", "reconcile", "--since", f.config.Since.String(), "--grace", f.config.Grace.String()}
	for _, flag := range [][2]string{{"--namesrv", f.broker.nameServers}, {"--namespace", f.broker.namespace}} {
		if flag[1] != "" {
			words = append(words, flag[0], flag[1])
		}
	}
	for _, s := range f.schemas {
		words = append(words, "--schema", s)
	}
	for _, e := range f.expect {
		words = append(words, "--expect", e)
	}
	words = append(words, "--mend")
	for i, w := range words {
		words[i] = printable.Word(w)
	}
	line := strings.Join(words, " ")
	if len(f.databases) > 0 {
		line += "  # with the same --database"
	}
	return line
}

// printReconciliation prints a reconciliation. command is the one that mends.
func printReconciliation(w io.Writer, x *operate.Reconciliation, command string) error {
	fmt.Fprintf(w, "events published from %s to %s\n", moment(x.From), moment(x.To))
	table := newTable(w, "  ", "PUBLISHER", "SCHEMA", "PUBLISHED", "OWED", "REJECTED")
	for _, p := range x.Publishers {
		if p.Published > 0 {
			table.row(short(p.Service), short(p.Schema), strconv.Itoa(p.Published), strconv.Itoa(p.Owed), strconv.Itoa(p.Rejected))
		}
	}
	if err := table.flush(); err != nil {
		return err
	}
	table = newTable(w, "  ", "CONSUMER", "SERVICE", "EVENTS", "HANDLED", "WAITING", "MISSING", "WHY")
	for i := range x.Consumers {
		c := &x.Consumers[i]
		if c.Expected > 0 || c.Never {
			table.row(short(c.Consumer), orDash(short(c.Service)), strconv.Itoa(c.Expected), strconv.Itoa(c.Handled), strconv.Itoa(c.Waiting()), strconv.Itoa(c.Missing), waitsFor(x, c))
		}
	}
	if err := table.flush(); err != nil {
		return err
	}
	for _, u := range x.Unclaimed {
		fmt.Fprintf(w, "no consumer: %s of topic %s: %s; start its consumer, or read its schema, too\n", short(u.Type), short(u.Topic), plural(u.Events, "event"))
	}
	if len(x.Missing) > 0 {
		fmt.Fprintln(w, "missing")
		table = newTable(w, "  ", "EVENT", "TYPE", "SUBJECT", "PUBLISHED", "CONSUMER", "CAUSE")
		for _, v := range x.Missing {
			cause := string(v.Cause)
			if v.Mended {
				cause += ", sent again"
			}
			table.row(v.EventID.String(), short(v.Type), orDash(short(v.Subject)), moment(v.RecordedAt), short(v.Consumer), cause)
		}
		if err := table.flush(); err != nil {
			return err
		}
		lost := slices.ContainsFunc(x.Missing, func(v operate.MissingEvent) bool {
			return v.Cause != operate.MissingUnrecorded && v.Cause != operate.MissingExpired && !v.Mended
		})
		if lost {
			fmt.Fprintln(w, "what is lost or passed is sent again by")
			fmt.Fprintf(w, "  run: %s\n", command)
		}
		if slices.ContainsFunc(x.Missing, func(v operate.MissingEvent) bool {
			return v.Cause == operate.MissingUnrecorded || v.Cause == operate.MissingExpired
		}) {
			fmt.Fprintln(w, "  what is unrecorded or expired may have been handled: see `rocketflow why EVENT`, and send it with `rocketflow resend --event EVENT` if it was not")
		}
	}
	fmt.Fprintln(w, "total: "+totals(x))
	for _, note := range []string{x.Broker, x.Postponed} {
		if note != "" {
			fmt.Fprintf(w, "broker: %s\n", cell(note, maxCell))
		}
	}
	for _, u := range x.Unread {
		fmt.Fprintf(w, "not read: schema %s: %s\n", short(u.Schema), cell(u.Reason, maxCell))
	}
	return nil
}

// waitsFor says why the events of a consumer are not handled.
func waitsFor(x *operate.Reconciliation, c *operate.ConsumerReconciliation) string {
	var parts []string
	add := func(n int, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	for _, reason := range []operate.HandlingState{operate.StateDead, operate.StateRetry, operate.StateGap, operate.StateBusy, operate.StateUnhandled, operate.StatePaused} {
		what := "parked (" + string(reason) + ")"
		if reason == operate.StateDead {
			what = "dead"
		}
		add(c.Parked[reason], what)
	}
	add(c.Owed, "owed")
	unread := "unread"
	if c.Never {
		unread = "unread: it was never started"
	}
	for _, p := range c.Paused {
		parts = append(parts, fmt.Sprintf("%v is paused by %s for %s", p.PauseTarget, short(p.Actor), span(x.To.Sub(p.Since))))
	}
	add(c.Unread, unread)
	add(c.Unknown, "unread or missing")
	add(c.Skipped, "passed over")
	if !c.Oldest.IsZero() && len(parts) > 0 {
		parts = append(parts, "the oldest since "+span(x.To.Sub(c.Oldest)))
	}
	return orDash(strings.Join(parts, ", "))
}
