package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/internal/inspect"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/saga"
)

// sagaReport is a saga as it is printed.
type sagaReport struct {
	Name       string            `json:"name"`
	Key        string            `json:"key"`
	Version    int               `json:"version"`
	State      string            `json:"state"`
	Revision   int64             `json:"revision"`
	StartedAt  time.Time         `json:"started_at,omitzero"` // zero: it has not begun, but events wait for it
	ChangedAt  time.Time         `json:"changed_at,omitzero"`
	FinishedAt time.Time         `json:"finished_at,omitzero"`
	Data       json.RawMessage   `json:"data"`
	Timeouts   []inspect.Timeout `json:"timeouts"` // its deadline, if one is armed
	History    []stepReport      `json:"history"`
	Waiting    []waitReport      `json:"waiting"` // events that it has not taken yet
}

// waitReport is an event that waits for a saga.
type waitReport struct {
	ID        int64           `json:"id"`
	Status    saga.WaitStatus `json:"status"`
	EventID   uuid.UUID       `json:"event_id"`
	Type      string          `json:"type"`
	Source    string          `json:"source"`
	Topic     string          `json:"topic"`
	State     string          `json:"state"` // of the saga when the event came; empty: it had not begun
	ArrivedAt time.Time       `json:"arrived_at"`
	ExpiresAt time.Time       `json:"expires_at"`
	Attempts  int             `json:"attempts"`
	NextAt    time.Time       `json:"next_at,omitzero"`
	LastError string          `json:"last_error,omitempty"`
}

type stepReport struct {
	Revision  int64     `json:"revision"`
	From      string    `json:"from"`
	To        string    `json:"to"`
	CauseType string    `json:"cause_type"`
	CauseID   uuid.UUID `json:"cause_id,omitzero"`
	At        time.Time `json:"at"`
}

func newInspectSagaCommand(flags *reportFlags) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:     "saga KEY",
		Short:   "Show the sagas of a key: state, data, deadline, history, and the events that wait for it",
		Example: "  rocketflow inspect saga 4711 --schema order_rocketflow",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, key := cmd.Context(), args[0]
			return flags.report(ctx, func(r *inspect.Reader) error {
				records, err := saga.History(ctx, r, flags.schema, key)
				if err != nil {
					return err
				}
				waiting, err := saga.NewWaitingEvents(r, flags.schema).List(ctx, saga.WaitingFilter{Saga: name, Key: key, Limit: mostWaiting})
				if err != nil {
					return err
				}
				for _, w := range waiting {
					if !slices.ContainsFunc(records, func(r saga.Record) bool { return r.Name == w.Saga }) {
						records = append(records, saga.Record{Instance: saga.Instance[json.RawMessage]{Name: w.Saga, Key: key}})
					}
				}
				var list []sagaReport
				for _, record := range records {
					if name != "" && record.Name != name {
						continue
					}
					report := newSagaReport(record, waiting)
					// Package saga names its timeouts so.
					if report.Timeouts, err = r.Timeouts(ctx, record.Name+"/"+key, 100); err != nil {
						return err
					}
					list = append(list, report)
				}
				switch {
				case len(list) == 0 && name != "":
					return fmt.Errorf("no saga %q with key %q in schema %q", name, key, flags.schema)
				case len(list) == 0:
					return fmt.Errorf("no saga with key %q in schema %q", key, flags.schema)
				case flags.json:
					return printJSON(cmd.OutOrStdout(), list)
				}
				return printSagas(cmd.OutOrStdout(), r.Now, list)
			})
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "only the saga of this name")
	return cmd
}

// mostWaiting bounds the waiting events that are shown.
const mostWaiting = 200

func newSagaReport(r saga.Record, waiting []saga.WaitingEvent) sagaReport {
	report := sagaReport{
		Name: r.Name, Key: r.Key, Version: r.Version, State: r.State, Revision: r.Revision,
		StartedAt: r.StartedAt, ChangedAt: r.ChangedAt, FinishedAt: r.FinishedAt, Data: r.Data,
	}
	for _, t := range r.Transitions {
		report.History = append(report.History, stepReport(t))
	}
	for _, w := range waiting {
		if w.Saga == r.Name {
			report.Waiting = append(report.Waiting, waitReport{
				ID: w.ID, Status: w.Status, EventID: w.Event.ID, Type: w.Event.Type, Source: w.Event.Source, Topic: w.Event.Topic, State: w.State,
				ArrivedAt: w.ArrivedAt, ExpiresAt: w.ExpiresAt, Attempts: w.Attempts, NextAt: w.NextAt, LastError: w.LastError,
			})
		}
	}
	return report
}

func printSagas(w io.Writer, now time.Time, list []sagaReport) error {
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

func printSaga(w io.Writer, now time.Time, s sagaReport) error {
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
	for _, t := range s.History {
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

func printWaiting(w io.Writer, now time.Time, list []waitReport) error {
	if len(list) == 0 {
		return nil
	}
	fmt.Fprintln(w, "waiting events (retry or discard them by rocketflow saga)")
	table := newTable(w, "  ", "STATUS", "TYPE", "EVENT", "CAME", "IN STATE", "UNTIL", "ATTEMPTS", "ERROR")
	for _, e := range list {
		until := away(now, e.ExpiresAt)
		switch e.Status {
		case saga.WaitsForRetry:
			until = next(now, e.NextAt)
		case saga.WaitFailed:
			until = "-"
		}
		table.row(string(e.Status), e.Type, e.EventID.String(), momentAgo(now, e.ArrivedAt), orDash(e.State), until, strconv.Itoa(e.Attempts),
			orDash(short(e.LastError)))
	}
	return table.flush()
}
