package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/operate"
)

// resendFlags are the flags of resend: which events, at which rate, and to which broker.
type resendFlags struct {
	reportFlags
	filter eventFlags
	rate   float64
	broker brokerFlags
}

func newResendCommand() *cobra.Command {
	var f resendFlags
	cmd := &cobra.Command{
		Use:   "resend",
		Short: "Send events of the outbox again that the broker has lost",
		Long: `Sends events that a service's outbox still keeps to the broker again, the oldest first, and prints how many. Use it when a
broker has lost messages that it had acknowledged, such as with its disk. Consumers request missing events of a stream by
themselves, but not its last event, and not events that are not ordered. A consumer that has handled an event recognizes
the second copy as a duplicate. An event is selected if it matches all of the flags that are set.

A time is an instant, such as 2026-01-31T08:00:00Z, or how long ago, such as 90m. ROCKETMQ_ACCESS_KEY and
ROCKETMQ_SECRET_KEY, if they are set, sign the requests to the broker. ROCKETMQ_TLS_CA, ROCKETMQ_TLS_CERT,
ROCKETMQ_TLS_KEY and ROCKETMQ_TLS_SERVER_NAME make the connections use TLS, and ROCKETMQ_TRANSPORT chooses how they are
made, as for services.`,
		Example: `  rocketflow resend --since 2h --schema order_rocketflow    # the example order service
  rocketflow resend --topic orders --subject 4711
  rocketflow resend --all --rate 2000`,
		Args: args(cobra.NoArgs),
		RunE: f.run,
	}
	f.reportFlags.addChange(cmd)
	f.filter.addChange(cmd, "send all events that the outbox keeps", "event", "source", "topic", "type", "subject", "since", "until")
	f.broker.add(cmd)
	cmd.Flags().Float64Var(&f.rate, "rate", 500, "at most this many events per second")
	return cmd
}

func (f *resendFlags) run(cmd *cobra.Command, _ []string) error {
	if err := f.check(cmd); err != nil {
		return err
	}
	ctx := cmd.Context()
	client, err := f.broker.open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close(ctx) }() // nothing is in flight
	return f.operateWith(ctx, operate.Config{Broker: client, ResendRate: f.rate}, func(ctx context.Context, o *operate.Operator) error {
		n, err := o.Resend(ctx, f.filter.resend())
		if err != nil || f.json {
			return f.printChanged(cmd.OutOrStdout(), "sent", n, "event", err)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "sent %s again\n", plural(n, "event"))
		return err
	})
}

// check completes the flags from the environment.
func (f *resendFlags) check(cmd *cobra.Command) error {
	if err := f.filter.checkChange(cmd, time.Now()); err != nil {
		return err
	}
	switch {
	case f.rate <= 0:
		return usagef("--rate %v: want more than 0", f.rate)
	case !f.broker.named():
		return usagef("no broker is named: set --namesrv or ROCKETMQ_NAMESRV")
	}
	return nil
}
