package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/operate"
)

func newTimeoutsCommand() *cobra.Command {
	var flags reportFlags
	cmd := parent("timeouts", "Fire, move or disarm an armed timeout",
		newTimeoutsFireCommand(&flags),
		newTimeoutsMoveCommand(&flags),
		newTimeoutsDisarmCommand(&flags),
	)
	cmd.Long = `Changes an armed timeout, which rocketflow inspect timeouts shows. The key of a saga's deadline is the saga's name and
key, such as order/4711, and its name is the state. This is safe while the service runs: a timeout fires at most once, and
not after it was disarmed.`
	cmd.Example = `  rocketflow inspect timeouts order/4711 --schema order_rocketflow
  rocketflow timeouts fire order/4711 pending --reason "paid by phone" --schema order_rocketflow
  rocketflow timeouts move order/4711 pending --to 2h
  rocketflow timeouts disarm order/4711 pending --yes`
	flags.addChange(cmd)
	return cmd
}

// timeoutFlags are what the commands have in common.
type timeoutFlags struct{ event string }

func (f *timeoutFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.event, "event", "", "only if it fires with this event: not if it was armed again or moved since it was shown")
}

func (f *timeoutFlags) ref(arguments []string) (r operate.TimeoutRef, err error) {
	r.Key, r.Name = arguments[0], arguments[1]
	if r.Key == "" || r.Name == "" {
		return r, usagef("KEY or NAME is empty")
	}
	if f.event != "" {
		if r.EventID, err = parseEventID(f.event); err == nil && r.EventID == uuid.Nil {
			err = usagef("--event %q is not the id of an event", f.event)
		}
	}
	return r, err
}

// changeTimeout changes a timeout and prints what was done.
func (f *reportFlags) changeTimeout(cmd *cobra.Command, r operate.TimeoutRef, done, text string, change func(context.Context, *operate.Operator) error) error {
	return f.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
		err := change(ctx, o)
		switch {
		case errors.Is(err, operate.ErrUnknownTimeout):
			return fmt.Errorf("%w: see rocketflow inspect timeouts", err)
		case err != nil:
			return err
		}
		return f.printDone(cmd.OutOrStdout(), map[string]bool{done: true}, "timeout %s of %s %s", cell(r.Name, maxCell), cell(r.Key, maxCell), text)
	})
}

func newTimeoutsFireCommand(flags *reportFlags) *cobra.Command {
	var which timeoutFlags
	cmd := &cobra.Command{
		Use:     "fire KEY NAME",
		Short:   "Let a timeout fire now",
		Long:    "Makes a timeout due now. A process of the service sends its event within about a second.",
		Example: "  rocketflow timeouts fire order/4711 pending --schema order_rocketflow",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			r, err := which.ref(arguments)
			if err != nil {
				return err
			}
			return flags.changeTimeout(cmd, r, "fired", "is due", func(ctx context.Context, o *operate.Operator) error { return o.FireTimeout(ctx, r) })
		},
	}
	which.add(cmd)
	return cmd
}

func newTimeoutsMoveCommand(flags *reportFlags) *cobra.Command {
	var which timeoutFlags
	var to string
	cmd := &cobra.Command{
		Use:   "move KEY NAME --to TIME",
		Short: "Change when a timeout fires",
		Long: `Changes when a timeout fires: to an instant, such as 2026-01-31T08:00:00Z, or a time from now by Postgres' clock, such as
90m. A time in the past is due at once.`,
		Example: "  rocketflow timeouts move order/4711 pending --to 2h --schema order_rocketflow",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			r, err := which.ref(arguments)
			if err != nil {
				return err
			}
			if err := required(cmd, "to"); err != nil {
				return err
			}
			in, err := time.ParseDuration(to)
			at := time.Time{}
			if err != nil || in < 0 {
				if at, err = time.Parse(time.RFC3339, to); err != nil {
					return usagef("--to %q is not a time: want an instant, such as 2026-01-31T08:00:00Z, or a time from now, such as 90m", to)
				}
			}
			return flags.changeTimeout(cmd, r, "moved", "is moved", func(ctx context.Context, o *operate.Operator) error {
				if at.IsZero() {
					now, err := o.Now(ctx)
					if err != nil {
						return err
					}
					at = now.Add(in)
				}
				return o.MoveTimeout(ctx, r, at)
			})
		},
	}
	which.add(cmd)
	cmd.Flags().StringVar(&to, "to", "", "when it fires (required)")
	return cmd
}

func newTimeoutsDisarmCommand(flags *reportFlags) *cobra.Command {
	var which timeoutFlags
	var confirm confirmFlag
	cmd := &cobra.Command{
		Use:   "disarm KEY NAME",
		Short: "Disarm a timeout: it never fires",
		Long: `Disarms a timeout. A saga whose deadline is disarmed stays in its state until an event moves it. Asks for confirmation;
where there is no terminal, --yes is required.`,
		Example: "  rocketflow timeouts disarm order/4711 pending --yes --schema order_rocketflow",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			r, err := which.ref(arguments)
			if err != nil {
				return err
			}
			if err := confirm.possible(cmd, "a disarmed timeout never fires"); err != nil {
				return err
			}
			if err := confirm.confirm(cmd, fmt.Sprintf("disarm timeout %s of %s?", cell(r.Name, maxCell), cell(r.Key, maxCell))); err != nil {
				return err
			}
			return flags.changeTimeout(cmd, r, "disarmed", "is disarmed", func(ctx context.Context, o *operate.Operator) error { return o.DisarmTimeout(ctx, r) })
		},
	}
	which.add(cmd)
	confirm.add(cmd)
	return cmd
}
