package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/internal/devstack"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// How long servers may take to start, the first time with their download, and to stop.
const (
	startTimeout = 10 * time.Minute
	stopTimeout  = 30 * time.Second
)

func newDevCommand() *cobra.Command {
	var flags stackFlags
	cmd := &cobra.Command{
		Use:   "dev [flags] [-- command argument…]",
		Short: "Run PostgreSQL and a broker on this machine, alone or around a command",
		Long: `Run PostgreSQL and a broker on this machine.

Alone, it prints the two variables that name the servers, and runs until Ctrl-C.
With a command, it runs that with the variables set, stops the servers when the
command ends, and exits with its status.

PostgreSQL is the installed one, or else fetched once. The broker is one that speaks
RocketMQ's protocol in this very process: it needs no Java and keeps nothing.
--broker=rocketmq starts a real RocketMQ, which is fetched once by Maven (mvn) and
needs Java 17 or newer.

A server that DATABASE_URL or ROCKETMQ_NAMESRV names already is used as it is; with
--broker, one is started all the same, and ROCKETMQ_NAMESRV names it to the command.
--postgres-version fetches a version of PostgreSQL once and starts it, whatever is
installed and whatever DATABASE_URL says.

With --dir, PostgreSQL keeps its tables and a real RocketMQ its messages. The embedded
broker forgets topics, messages and timers. What it had not confirmed, the outbox sends
again; timeouts fire from their rows, some seconds late. But an event that it had
confirmed and no handler had seen is gone, and those after it in its stream wait.`,
		Example: "  rocketflow dev --dir .dev\n  rocketflow dev -- go test ./...",
		Args: func(cmd *cobra.Command, args []string) error {
			switch dash := cmd.ArgsLenAtDash(); {
			case len(args) > 0 && dash != 0:
				return usagef("unexpected argument %q: put -- before a command", args[0])
			case len(args) == 0 && dash == 0:
				return usagef("a command is missing after --")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				if _, err := exec.LookPath(args[0]); err != nil {
					return err // before servers are started for nothing
				}
			}
			return flags.with(cmd.Context(), cmd.ErrOrStderr(), func(stack *devstack.Stack) error {
				if len(args) > 0 {
					return runCommand(cmd, stack, args)
				}
				for _, v := range environment(stack) {
					name, value, _ := strings.Cut(v, "=")
					fmt.Fprintf(cmd.OutOrStdout(), "export %s='%s'\n", name, strings.ReplaceAll(value, "'", `'\''`))
				}
				if stack.Embedded != nil {
					fmt.Fprintln(cmd.ErrOrStderr(), flags.forgets())
				}
				fmt.Fprintln(cmd.ErrOrStderr(), "Ctrl-C stops the servers")
				return stack.Wait(cmd.Context())
			})
		},
	}
	flags.add(cmd)
	return cmd
}

// stackFlags are the flags of commands that start servers.
type stackFlags struct {
	dir                                 string
	keep, noFsync                       bool
	broker                              brokerFlag
	postgresVersion                     string
	postgresPort, namesPort, brokerPort int
}

func (f *stackFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.dir, "dir", "", "directory that keeps data and logs, but nothing of the embedded broker (default a temporary one)")
	cmd.Flags().BoolVar(&f.noFsync, "no-fsync", false, "don't have PostgreSQL wait for the disk: faster, for tests")
	cmd.Flags().BoolVar(&f.keep, "keep", false, "keep the temporary directory, and tell its name")
	f.addServers(cmd)
}

// addServers adds the flags that say which servers to start, and where.
func (f *stackFlags) addServers(cmd *cobra.Command) {
	cmd.Flags().Var(&f.broker, "broker", "which broker to start (default embedded, or none where ROCKETMQ_NAMESRV is set)")
	cmd.Flags().StringVar(&f.postgresVersion, "postgres-version", "", "version of PostgreSQL to fetch and run, such as 17.6; ignores DATABASE_URL (default the installed one)")
	cmd.Flags().IntVar(&f.postgresPort, "postgres-port", 0, "port of PostgreSQL (default a free one)")
	cmd.Flags().IntVar(&f.namesPort, "namesrv-port", 0, "port of the name server (default a free one)")
	cmd.Flags().IntVar(&f.brokerPort, "broker-port", 0, "port of the broker; a real one takes also the one two below and the next (default free ones)")
}

// databaseURL returns the URL of the PostgreSQL to use, or "" if one is to be started.
func (f *stackFlags) databaseURL() string {
	if f.postgresVersion != "" {
		return ""
	}
	return os.Getenv("DATABASE_URL")
}

// nameServer is that of the RocketMQ to use; "" if one is to be started.
func (f *stackFlags) nameServer() string {
	if f.broker != "" {
		return ""
	}
	return os.Getenv("ROCKETMQ_NAMESRV")
}

// forgets tells what an end of the embedded broker means.
func (f *stackFlags) forgets() string {
	if f.dir == "" {
		return "the broker is embedded and for development; --broker=rocketmq starts a real one"
	}
	return "the embedded broker keeps nothing in " + f.dir + ": events that no handler has seen are lost with it (see `rocketflow dev --help`)"
}

// start starts servers, and tells which.
func (f *stackFlags) start(ctx context.Context, log *slog.Logger) (*devstack.Stack, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	config := devstack.Config{
		DatabaseURL: f.databaseURL(),
		NameServer:  f.nameServer(),
		Dir:         f.dir,
		Keep:        f.keep,
		Postgres:    devstack.PostgresConfig{Version: f.postgresVersion, Port: f.postgresPort, NoFsync: f.noFsync},
		RocketMQ:    devstack.RocketMQConfig{NameServerPort: f.namesPort, BrokerPort: f.brokerPort},
		Logger:      log,
	}
	if f.broker != realBroker {
		config.Embedded = &devstack.EmbeddedConfig{NameServerPort: f.namesPort, BrokerPort: f.brokerPort}
	}
	return devstack.Start(ctx, config)
}

// newLog is for people: without times and levels.
func newLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}}))
}

// with starts servers, runs fn and stops them, also after a signal. What is going on is written to w.
func (f *stackFlags) with(ctx context.Context, w io.Writer, fn func(*devstack.Stack) error) (err error) {
	log := newLog(w)
	stack, err := f.start(ctx, log)
	if err != nil {
		return err
	}
	defer func() {
		if stack.Dir() != "" {
			log.Info("stopping the servers")
		}
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		err = errors.Join(err, stack.Stop(stopping))
		if f.keep && stack.Dir() != "" {
			log.Info("data and logs are kept", "dir", stack.Dir())
		}
	}()
	return fn(stack)
}

// environment names the servers to programs, ROCKETFLOW_STACK tells them that they are for development.
func environment(stack *devstack.Stack) []string {
	return []string{"DATABASE_URL=" + stack.DatabaseURL(), "ROCKETMQ_NAMESRV=" + stack.NameServer()}
}

// runCommand runs a program to its end, whose status becomes ours.
func runCommand(cmd *cobra.Command, stack *devstack.Stack, args []string) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	defer signal.Stop(signals)

	program := exec.Command(args[0], args[1:]...)
	program.Env = append(append(os.Environ(), environment(stack)...), "ROCKETFLOW_STACK=1")
	program.Stdin, program.Stdout, program.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
	if err := program.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- program.Wait() }()

	var watch sync.WaitGroup
	watching, cancel := context.WithCancel(context.WithoutCancel(cmd.Context()))
	defer watch.Wait()
	defer cancel()
	died := make(chan error, 1)
	watch.Go(func() { died <- stack.Wait(watching) })
	for {
		select {
		case err := <-ended:
			return asStatus(err)
		case s := <-signals: // Ctrl-C the terminal sends to the program itself
			_ = program.Process.Signal(s) // may have ended
		case err := <-died:
			fmt.Fprintf(cmd.ErrOrStderr(), "rocketflow: %s\n", printable.Text(err.Error(), maxMessage))
		}
	}
}

// asStatus is how shells report the end of a program.
func asStatus(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if w, ok := exit.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return &statusError{128 + int(w.Signal())}
	}
	return &statusError{exit.ExitCode()}
}
