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
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/internal/devstack"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// Limits for starting servers, with their download at the first time, and for stopping them.
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

Without a command, it prints the two variables that name the servers, and runs until Ctrl-C. With a command, it runs the
command with these variables, stops the servers when it ends, and exits with its status.

PostgreSQL is the installed one, or fetched once. The broker speaks RocketMQ's protocol in this process: it needs no Java
and stores nothing on disk. --broker=rocketmq starts a real RocketMQ, which Maven (mvn) fetches once and which needs Java
17 or newer. A server that DATABASE_URL or ROCKETMQ_NAMESRV already names is used and not started; with --broker, a broker
is started all the same, and ROCKETMQ_NAMESRV names that one to the command. A RocketMQ that runs already can require TLS:
set ROCKETMQ_TLS_CA, ROCKETMQ_TLS_CERT, ROCKETMQ_TLS_KEY and ROCKETMQ_TLS_SERVER_NAME as for services.
--postgres-version fetches a version of PostgreSQL once and starts it, whatever is installed and whatever
DATABASE_URL says.

With --dir, PostgreSQL keeps its tables and a real RocketMQ its messages. The embedded broker loses topics, messages and
timers when it ends. The outbox sends again what it had not acknowledged, and timeouts fire from their rows, some seconds
late. But an event that it had acknowledged and no handler had received is lost, and later events of its stream wait.`,
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
	broker                              brokerKind
	postgresVersion, rocketmqVersion    string
	postgresPort, namesPort, brokerPort int
}

func (f *stackFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.dir, "dir", "", "directory for data and logs, not of the embedded broker (default a temporary one)")
	cmd.Flags().BoolVar(&f.noFsync, "no-fsync", false, "for tests: PostgreSQL's data is in memory where there is room, and not flushed")
	cmd.Flags().BoolVar(&f.keep, "keep", false, "keep the temporary directory, and print its name")
	f.addServers(cmd)
}

// addServers adds the flags that select the servers and their ports.
func (f *stackFlags) addServers(cmd *cobra.Command) {
	cmd.Flags().Var(&f.broker, "broker", "the broker to start (default embedded, or none if ROCKETMQ_NAMESRV is set)")
	cmd.Flags().StringVar(&f.postgresVersion, "postgres-version", "", "version of PostgreSQL to fetch and run, such as 17.6 (default the installed one)")
	cmd.Flags().StringVar(&f.rocketmqVersion, "rocketmq-version", "", "RocketMQ of --broker=rocketmq, such as 4.9.7 or 5.5.0 (default "+devstack.RocketMQVersion+")")
	cmd.Flags().IntVar(&f.postgresPort, "postgres-port", 0, "port of PostgreSQL (default any free port)")
	cmd.Flags().IntVar(&f.namesPort, "namesrv-port", 0, "port of the name server (default any free port)")
	cmd.Flags().IntVar(&f.brokerPort, "broker-port", 0, "port of the broker; a real one uses port-2 and port+1 too (default any free ones)")
}

// databaseURL returns the URL of a PostgreSQL that runs already; empty: one is to be started.
func (f *stackFlags) databaseURL() string {
	if f.postgresVersion != "" {
		return ""
	}
	return os.Getenv("DATABASE_URL")
}

// nameServer returns the address of a name server that runs already; empty: a broker is to be started.
func (f *stackFlags) nameServer() string {
	if f.broker != "" {
		return ""
	}
	return os.Getenv("ROCKETMQ_NAMESRV")
}

// forgets describes what is lost when the embedded broker ends.
func (f *stackFlags) forgets() string {
	if f.dir == "" {
		return "the broker is embedded, for development only; --broker=rocketmq starts a real one"
	}
	return "the embedded broker keeps nothing in " + f.dir + ": events that no handler has received are lost when it ends (see rocketflow dev --help)"
}

// start starts the servers.
func (f *stackFlags) start(ctx context.Context, log *slog.Logger) (*devstack.Stack, error) {
	if f.rocketmqVersion != "" && f.broker != realBroker {
		return nil, usagef("--rocketmq-version is for --broker=rocketmq")
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	config := devstack.Config{
		DatabaseURL: f.databaseURL(),
		NameServer:  f.nameServer(),
		Dir:         f.dir,
		Keep:        f.keep,
		Postgres:    devstack.PostgresConfig{Version: f.postgresVersion, Port: f.postgresPort, NoFsync: f.noFsync},
		RocketMQ:    devstack.RocketMQConfig{Version: f.rocketmqVersion, NameServerPort: f.namesPort, BrokerPort: f.brokerPort},
		Logger:      log,
	}
	if f.broker != realBroker {
		config.Embedded = &devstack.EmbeddedConfig{NameServerPort: f.namesPort, BrokerPort: f.brokerPort}
	}
	if config.NameServer != "" {
		var err error
		if config.TLS, err = app.TLSFromEnv(os.Getenv); err != nil {
			return nil, err
		}
	}
	return devstack.Start(ctx, config)
}

// newLog returns a logger for people, without times and levels.
func newLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}}))
}

// with starts servers, runs fn and stops them, also after a signal. It logs to w.
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

// environment returns the variables that name the servers to a program.
func environment(stack *devstack.Stack) []string {
	return []string{"DATABASE_URL=" + stack.DatabaseURL(), "ROCKETMQ_NAMESRV=" + stack.NameServer()}
}

// stackEnvironment returns more variables, for a command that dev runs: that the servers are dev's, and the version of a RocketMQ that it
// has started.
func stackEnvironment(stack *devstack.Stack) []string {
	more := []string{"ROCKETFLOW_STACK=1"}
	if stack.RocketMQ != nil {
		more = append(more, "ROCKETFLOW_ROCKETMQ_VERSION="+stack.RocketMQ.Version())
	}
	return more
}

// runCommand runs a program and returns its exit status as an error.
func runCommand(cmd *cobra.Command, stack *devstack.Stack, args []string) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	defer signal.Stop(signals)

	program := exec.Command(args[0], args[1:]...)
	program.Env = slices.Concat(os.Environ(), environment(stack), stackEnvironment(stack))
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
		case s := <-signals: // a terminal sends Ctrl-C to the program itself
			_ = program.Process.Signal(s) // the program may have ended
		case err := <-died:
			fmt.Fprintf(cmd.ErrOrStderr(), "rocketflow: %s\n", printable.Text(err.Error(), maxMessage))
		}
	}
}

// asStatus returns how shells report the end of a program.
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
