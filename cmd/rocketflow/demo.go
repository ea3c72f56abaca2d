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

// errPromise: the last line says which.
var errPromise = errors.New("the demo found a broken promise")

// newDemoCommand plays the order-close flow.
func newDemoCommand() *cobra.Command {
	config := stage.Config{Command: serviceCommand}
	var servers stackFlags
	command := &cobra.Command{
		Use:   "demo",
		Short: "Drive the order-close flow and verify that nothing is lost, doubled, out of order or early",
		Long: `Runs the order and the payment service as processes of their own, sends customers who pay in time, late, never, within
milliseconds of the deadline, who are declined and who cancel, and then verifies the databases.

PostgreSQL and RocketMQ are those that DATABASE_URL and ROCKETMQ_NAMESRV name. What isn't set is started on this machine
for the while: of PostgreSQL the installed one, or else one that is fetched once; for RocketMQ a broker in this process,
which needs no Java. --broker starts a broker of its own also where ROCKETMQ_NAMESRV is set; --broker=rocketmq a real one,
which needs Java 17 and, once, Maven.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			config.Began, config.Out = time.Now(), cmd.OutOrStdout()
			return demo(cmd, config, &servers)
		},
	}
	command.Flags().IntVar(&config.Orders, "orders", 300, "how many orders are placed")
	command.Flags().IntVar(&config.Processes, "processes", 1, "how many processes of each service run side by side")
	command.Flags().BoolVar(&config.Kill, "kill", false, "kill one process of each service half way; wants --processes 2 or more")
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
		return usagef("--kill: want --processes 2 or more, so that others go on")
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
			fmt.Fprintf(cmd.ErrOrStderr(), "the tables are kept, see them with: rocketflow dev --dir %s\n", stack.Dir())
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

// serviceCommand runs a service by this very program.
func serviceCommand(service string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	return exec.Command(self, "demo-service", service)
}

// newDemoServiceCommand is what serviceCommand runs.
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
