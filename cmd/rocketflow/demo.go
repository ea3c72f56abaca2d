package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/examples/order"
	"github.com/rocketflow/rocketflow/examples/orderclose/stage"
	"github.com/rocketflow/rocketflow/examples/payment"
)

// errPromise says that the demo found a broken promise. The last line of the summary names it.
var errPromise = errors.New("the demo found a broken promise")

// newDemoCommand returns the command that runs the order-close flow.
func newDemoCommand() *cobra.Command {
	config := stage.Config{Command: serviceCommand}
	var servers stackFlags
	command := &cobra.Command{
		Use:   "demo",
		Short: "Run the order-close flow, and verify that no event is lost, doubled, out of order or early",
		Long: `Runs an order and a payment service as processes of their own. Customers pay in time, late, never or within milliseconds
of the deadline, are declined, or cancel. Then the demo verifies the databases.

It uses the servers that DATABASE_URL and ROCKETMQ_NAMESRV name. A server that isn't named is started on this machine and
stopped at the end: PostgreSQL as it is installed, or fetched once; instead of RocketMQ a broker in this process, which
needs no Java. --broker starts a broker even if ROCKETMQ_NAMESRV is set; --broker=rocketmq starts a real RocketMQ, which
needs Java 17 and, once, Maven.`,
		Example: "  rocketflow demo --orders 1000 --processes 2 --kill",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			config.Began, config.Out = time.Now(), cmd.OutOrStdout()
			return demo(cmd, config, &servers)
		},
	}
	command.Flags().IntVar(&config.Orders, "orders", 300, "number of orders")
	command.Flags().IntVar(&config.Processes, "processes", 1, "number of processes of each service")
	command.Flags().BoolVar(&config.Kill, "kill", false, "kill one process of each service half way; requires --processes 2 or more")
	servers.addServers(command)
	return command
}

func demo(cmd *cobra.Command, config stage.Config, servers *stackFlags) (err error) {
	ctx := cmd.Context()
	switch {
	case config.Orders < 1:
		return usagef("--orders %d: want at least 1", config.Orders)
	case config.Processes < 1:
		return usagef("--processes %d: want at least 1", config.Processes)
	case config.Kill && config.Processes < 2:
		return usagef("--kill kills one process of each service: want --processes 2 or more, so that another goes on")
	}
	if servers.databaseURL() == "" || servers.nameServer() == "" {
		fmt.Fprintln(cmd.ErrOrStderr(), "starting servers on this machine")
	}
	stack, err := servers.start(ctx, newLog(cmd.ErrOrStderr()))
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && ctx.Err() == nil && stack.Dir() != "" {
			stack.Keep()
			fmt.Fprintf(cmd.ErrOrStderr(), "the tables are kept in %[1]s: look at them with rocketflow dev --dir %[1]s\n", stack.Dir())
		}
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		err = errors.Join(err, stack.Stop(stopping))
	}()
	config.DatabaseURL, config.NameServers = stack.DatabaseURL(), stack.NameServer()
	summary, err := stage.Run(ctx, config)
	if err == nil && !summary.OK() {
		err = errPromise
	}
	return err
}

// serviceCommand returns a command that runs a service with this program.
func serviceCommand(service string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	return exec.Command(self, "demo-service", service)
}

// newDemoServiceCommand returns the command that serviceCommand runs.
func newDemoServiceCommand() *cobra.Command {
	return &cobra.Command{
		Use:       "demo-service order|payment",
		Short:     "Run one of the demo's services; its settings are environment variables",
		Hidden:    true,
		Args:      args(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		ValidArgs: []string{"order", "payment"},
		RunE: func(cmd *cobra.Command, args []string) error {
			stage.StopWithParent()
			run := order.Main
			if args[0] == "payment" {
				run = payment.Main
			}
			if code := run(nil, cmd.ErrOrStderr()); code != exitOK {
				return &statusError{code}
			}
			return nil
		},
	}
}
