package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/operate"
)

func newInspectSagaCommand(flags *reportFlags) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:     "saga KEY",
		Short:   "Show the sagas of a key: state, data, deadline, history and waiting events",
		Example: "  rocketflow inspect saga 4711 --schema order_rocketflow",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			key := args[0]
			if key == "" {
				return usagef("KEY is empty")
			}
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				list, err := o.Sagas(ctx, operate.SagaFilter{Key: key, Name: name})
				if err != nil {
					return err
				}
				switch {
				case len(list) == 0 && name != "":
					return fmt.Errorf("schema %q has no saga %q with key %q", flags.schema, name, key)
				case len(list) == 0:
					return fmt.Errorf("schema %q has no saga with key %q", flags.schema, key)
				case flags.json:
					return printJSON(cmd.OutOrStdout(), list)
				}
				now, err := o.Now(ctx)
				if err != nil {
					return err
				}
				return printSagas(cmd.OutOrStdout(), now, list)
			})
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "only the saga of this name")
	return cmd
}

func newInspectSagasCommand(flags *reportFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "sagas",
		Short: "Count running sagas by state, with the one that has been there for longest",
		Long: `Counts the sagas that have not finished, by name and state, and names the one that has been in its state for the
longest time. Of one name, version and state at most 10000 are looked at. What a saga waits for: rocketflow why KEY.`,
		Example: "  rocketflow inspect sagas --schema order_rocketflow",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				list, err := o.RunningSagas(ctx)
				switch {
				case err != nil:
					return err
				case flags.json:
					return printJSON(cmd.OutOrStdout(), list)
				case len(list) == 0:
					fmt.Fprintln(cmd.OutOrStdout(), "no saga runs")
					return nil
				}
				table := newTable(cmd.OutOrStdout(), "", "SAGA", "STATE", "RUNNING", "LONGEST IN STATE", "KEY OF THAT ONE")
				for _, s := range list {
					table.row(s.Saga, s.State, count(s.Sagas), span(s.Oldest), s.OldestKey)
				}
				return table.flush()
			})
		},
	}
}

func printSagas(w io.Writer, now time.Time, list []operate.Saga) error {
	for i, s := range list {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := printSaga(w, now, s); err != nil {
			return err
		}
	}
	return nil
}

func printSaga(w io.Writer, now time.Time, s operate.Saga) error {
	head := newTable(w, "")
	if s.StartedAt.IsZero() {
		head.row("saga", s.Name+" (not begun)")
		head.row("key", s.Key)
		if err := head.flush(); err != nil {
			return err
		}
		return printWaiting(w, now, s.Waiting)
	}
	head.row("saga", s.Name+" (version "+strconv.Itoa(s.Version)+")")
	head.row("key", s.Key)
	head.row("state", s.State)
	head.row("revision", strconv.FormatInt(s.Revision, 10))
	head.row("started", momentAgo(now, s.StartedAt))
	head.row("changed", momentAgo(now, s.ChangedAt))
	head.row("finished", momentAgo(now, s.FinishedAt))
	for _, t := range s.Timeouts {
		head.row("deadline", t.Name+" at "+momentAgo(now, t.DueAt))
	}
	if err := head.flush(); err != nil {
		return err
	}
	data, err := json.MarshalIndent(s.Data, "  ", "  ")
	if err != nil {
		return fmt.Errorf("indent data of saga %s of %s: %w", s.Name, s.Key, err)
	}
	fmt.Fprintf(w, "data\n  %s\nhistory\n", printable.JSON(data))
	table := newTable(w, "  ", "REVISION", "TRANSITION", "CAUSE", "EVENT", "AT", "AFTER")
	var before time.Time
	for _, t := range s.Transitions {
		cause, after := "-", "-"
		if t.CauseID != uuid.Nil {
			cause = t.CauseID.String()
		}
		if !before.IsZero() {
			after = span(t.At.Sub(before))
		}
		before = t.At
		table.row(strconv.FormatInt(t.Revision, 10), strings.TrimSpace(t.From+" → "+t.To), t.CauseType, cause, moment(t.At), after)
	}
	if err := table.flush(); err != nil {
		return err
	}
	return printWaiting(w, now, s.Waiting)
}

func printWaiting(w io.Writer, now time.Time, list []operate.WaitingEvent) error {
	if len(list) == 0 {
		return nil
	}
	fmt.Fprintln(w, "waiting events (retry or discard them with rocketflow saga)")
	table := newTable(w, "  ", "STATUS", "TYPE", "EVENT", "CAME", "IN STATE", "UNTIL", "ATTEMPTS", "ERROR")
	for _, e := range list {
		until := away(now, e.ExpiresAt)
		switch e.Status {
		case operate.WaitingForRetry:
			until = next(now, e.NextAt)
		case operate.WaitingFailed:
			until = "-"
		}
		table.row(string(e.Status), e.Event.Type, e.Event.ID.String(), momentAgo(now, e.ArrivedAt), orDash(e.State), until, strconv.Itoa(e.Attempts),
			orDash(short(e.LastError)))
	}
	return table.flush()
}
