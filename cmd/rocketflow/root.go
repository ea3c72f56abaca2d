package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/internal/printable"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
	exitSignal  = 130 // as shells report Ctrl-C
)

// newRoot returns the command line. Each command is in a file of its name.
func newRoot() *cobra.Command {
	root := parent("rocketflow", "Event-driven workflows on RocketMQ and PostgreSQL",
		newAuditCommand(),
		newConsoleCommand(),
		newDevCommand(),
		newDemoCommand(),
		newDemoServiceCommand(),
		newDoctorCommand(),
		newInspectCommand(),
		newMigrateCommand(),
		newOwedCommand(),
		newPauseCommand(),
		newReconcileCommand(),
		newRedriveCommand(),
		newResendCommand(),
		newResumeCommand(),
		newSagaCommand(),
		newTimeoutsCommand(),
		newTopicsCommand(),
		newVersionCommand(),
		newWhyCommand(),
	)
	root.Long = `Runs rocketflow's servers on this machine, migrates a service's tables, shows what is in them, and does what operators do.

Commands that work on tables take --database-url (default $DATABASE_URL) and --schema.`
	root.Example = `  rocketflow dev -- go test ./...                   # Postgres and a broker around a command
  rocketflow demo                                   # a flow of two services, verified
  rocketflow migrate up --schema order_rocketflow   # create or update a service's tables
  rocketflow doctor                                 # what is wrong, and what mends it
  rocketflow inspect backlog                        # what is owed, parked, armed and waiting
  rocketflow console                                # all of this in a browser
  rocketflow why ID                                 # what an event, an order or a saga waits for
  rocketflow reconcile --since 2h                   # what was published, and what is handled, waits or is missing
  rocketflow redrive retry --consumer billing       # dead letters again
  rocketflow owed redirect --topic order --to orders
  rocketflow resend --since 2h                      # after a broker lost messages`
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	return root
}

// run runs one command line and returns its exit code. SIGINT and SIGTERM end the context that commands get.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ctx, cancel := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)

	var status *statusError
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &status):
		return status.code
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "rocketflow: %s (see `%s --help`)\n", printable.Text(err.Error(), maxMessage), cmd.CommandPath())
		return exitUsage
	case ctx.Err() != nil: // the signal is the cause of whatever failed
		fmt.Fprintf(stderr, "rocketflow: %v\n", context.Cause(ctx))
		return exitSignal
	default:
		fmt.Fprintf(stderr, "rocketflow: %s\n", printable.Text(err.Error(), maxMessage))
		return exitFailure
	}
}

// maxMessage is the maximum length of an error message, in bytes.
const maxMessage = 8 << 10

// usageError says that the command line is wrong. Commands make it with usagef, and wrap their argument checks in args.
type usageError struct{ error }

func usagef(format string, a ...any) error { return &usageError{fmt.Errorf(format, a...)} }

// args turns the error of a check into a usage error.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &usageError{err}
		}
		return nil
	}
}

// statusError ends the program with an exit code and no message: the program that was run has printed the cause, or the user has declined.
type statusError struct{ code int }

func (e *statusError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// parent returns a command that only groups others. By itself it shows its help.
func parent(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				return usagef("unknown command %q: did you mean %s?", args[0], strings.Join(near, " or "))
			}
			return usagef("unknown command %q", args[0])
		},
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(commands...)
	return cmd
}
