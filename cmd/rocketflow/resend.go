package main

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// resendFlags select events of an outbox, and the broker that they go to.
type resendFlags struct {
	reportFlags
	outbox.ResendConfig
	since, until           string
	all                    bool
	nameServers, namespace string
}

func newResendCommand() *cobra.Command {
	var f resendFlags
	cmd := &cobra.Command{
		Use:   "resend",
		Short: "Send events of an outbox again that the broker lost",
		Long: `Sends what a service's outbox still keeps to the broker again, the oldest first, and prints how many events it sent. It is
for a broker that lost what it had confirmed, with its disk say: consumers ask by themselves for what they miss in a
stream, but not for its last event, nor for events without order. Who has handled an event already takes the second for a
duplicate. The flags that select events must all match.

Times are instants, as 2026-01-31T08:00:00Z, or how long ago, as 90m. ROCKETMQ_ACCESS_KEY and ROCKETMQ_SECRET_KEY sign the
requests, if they are set.`,
		Example: `  rocketflow resend --since 2h --schema order_rocketflow    # the example order service
  rocketflow resend --topic orders --subject 4711
  rocketflow resend --all --rate 2000`,
		Args: args(cobra.NoArgs),
		RunE: f.run,
	}
	f.reportFlags.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.Source, "source", "", "only events of this service")
	flags.StringVar(&f.Topic, "topic", "", "only events of this topic")
	flags.StringVar(&f.Type, "type", "", "only events of this type")
	flags.StringVar(&f.Subject, "subject", "", "only events of this aggregate")
	flags.StringVar(&f.since, "since", "", "only events recorded then or later")
	flags.StringVar(&f.until, "until", "", "only events recorded before")
	flags.BoolVar(&f.all, "all", false, "send all that the outbox keeps")
	limitFlag(cmd, &f.Limit, 0, "at most so many, the oldest first (default: no limit)")
	flags.Float64Var(&f.Rate, "rate", 500, "events a second")
	flags.StringVar(&f.nameServers, "namesrv", "", "name servers of RocketMQ, host:port;host:port (default $ROCKETMQ_NAMESRV)")
	flags.StringVar(&f.namespace, "namespace", "", "before the names of topics (default $ROCKETMQ_NAMESPACE)")
	return cmd
}

func (f *resendFlags) run(cmd *cobra.Command, _ []string) error {
	if err := f.check(cmd, time.Now()); err != nil {
		return err
	}
	ctx := cmd.Context()
	pool, err := f.openMigrated(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	client, err := rocketmq.Open(ctx, rocketmq.Config{
		NameServers: strings.Split(f.nameServers, ";"), Namespace: f.namespace, Service: "rocketflow-resend",
		AccessKey: os.Getenv("ROCKETMQ_ACCESS_KEY"), SecretKey: os.Getenv("ROCKETMQ_SECRET_KEY"),
	})
	if err != nil {
		return fmt.Errorf("connect to RocketMQ: %w", err)
	}
	defer func() { _ = client.Close(ctx) }() // nothing is on its way
	f.Pool, f.Schema, f.Broker = pool, f.schema, client
	n, err := outbox.Resend(ctx, f.ResendConfig)
	if err != nil {
		if n > 0 {
			err = fmt.Errorf("%w (after %s)", err, plural(n, "event"))
		}
		return err
	}
	if f.json {
		return printJSON(cmd.OutOrStdout(), map[string]int{"sent": n})
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "sent %s again\n", plural(n, "event"))
	return err
}

// check completes the flags. One that is set to nothing would select everything: it is refused.
func (f *resendFlags) check(cmd *cobra.Command, now time.Time) (err error) {
	selective := false
	for _, name := range []string{"source", "topic", "type", "subject", "since", "until"} {
		if flag := cmd.Flags().Lookup(name); flag.Changed {
			selective = true
			if flag.Value.String() == "" {
				return usagef("--%s is empty", name)
			}
		}
	}
	if f.Since, err = when("since", f.since, now); err != nil {
		return err
	}
	if f.Until, err = when("until", f.until, now); err != nil {
		return err
	}
	f.nameServers = cmp.Or(f.nameServers, os.Getenv("ROCKETMQ_NAMESRV"))
	f.namespace = cmp.Or(f.namespace, os.Getenv("ROCKETMQ_NAMESPACE"))
	switch {
	case selective && f.all:
		return usagef("--all and a filter exclude each other")
	case !selective && !f.all:
		return usagef("which events? Set a filter, or --all")
	case !f.Until.IsZero() && !f.Since.Before(f.Until):
		return usagef("--since is not before --until")
	case f.Limit < 0 || f.Limit == 0 && cmd.Flags().Changed("limit"):
		return usagef("--limit %d: want at least 1", f.Limit)
	case f.Rate <= 0:
		return usagef("--rate %v: want more than 0", f.Rate)
	case f.nameServers == "":
		return usagef("which broker? Set --namesrv or ROCKETMQ_NAMESRV")
	}
	return nil
}

// when reads an instant, or how long ago it was.
func when(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, usagef("--%s %q: want an instant, as 2026-01-31T08:00:00Z, or how long ago, as 90m", flag, text)
	}
	return at, nil
}
