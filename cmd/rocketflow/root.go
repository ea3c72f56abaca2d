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

// newRoot is the list of commands. Each is in a file of its name.
func newRoot() *cobra.Command {
	root := parent("rocketflow", "Event-driven workflows on RocketMQ and PostgreSQL",
		newDevCommand(),
		newDemoCommand(),
		newDemoServiceCommand(),
		newInspectCommand(),
		newMigrateCommand(),
		newOwedCommand(),
		newRedriveCommand(),
		newResendCommand(),
		newSagaCommand(),
		newVersionCommand(),
	)
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
	case ctx.Err() != nil: // whatever failed did so because it was told to end
		fmt.Fprintf(stderr, "rocketflow: %v\n", context.Cause(ctx))
		return exitSignal
	default:
		fmt.Fprintf(stderr, "rocketflow: %s\n", printable.Text(err.Error(), maxMessage))
		return exitFailure
	}
}

// maxMessage bounds what an error says, in bytes.
const maxMessage = 8 << 10

// usageError: the command line is wrong. Commands make it with usagef, and wrap their argument checks in args.
type usageError struct{ error }

func usagef(format string, a ...any) error { return &usageError{fmt.Errorf(format, a...)} }

// args makes what check finds a usage error.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &usageError{err}
		}
		return nil
	}
}

// statusError ends us with the status of a program that we ran, which has said itself what is wrong.
type statusError struct{ code int }

func (e *statusError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// parent is a command that only has others. By itself it shows its help.
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
