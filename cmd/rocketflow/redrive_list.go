package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/handlers"
)

// listMost is how many handlers lists unless it is told otherwise.
const listMost = 1000

// parkedReport is a parked event as it is printed.
type parkedReport struct {
	Consumer   string          `json:"consumer"`
	EventID    uuid.UUID       `json:"event_id"`
	Type       string          `json:"type"`
	Source     string          `json:"source"`
	Topic      string          `json:"topic"`
	Subject    string          `json:"subject,omitempty"`
	Sequence   int64           `json:"sequence,omitempty"`
	Previous   int64           `json:"previous,omitempty"`
	RecordedAt time.Time       `json:"recorded_at,omitzero"`
	Reason     handlers.Reason `json:"reason"`
	Attempts   int             `json:"attempts"`
	NextAt     time.Time       `json:"next_at,omitzero"`
	LastError  string          `json:"last_error,omitempty"`
	ParkedAt   time.Time       `json:"parked_at"`
}

type lister func(*handlers.DeadLetters, context.Context, handlers.Filter) ([]handlers.Parked, error)

func newRedriveListCommand(flags *reportFlags, use, summary, thing string, list lister) *cobra.Command {
	var filter filterFlags
	cmd := &cobra.Command{
		Use:   use,
		Short: summary,
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := filter.check(cmd); err != nil {
				return err
			}
			return flags.deadLetters(cmd.Context(), func(ctx context.Context, d *handlers.DeadLetters) error {
				parked, err := list(d, ctx, filter.Filter)
				if err != nil {
					return err
				}
				if flags.json {
					return printJSON(cmd.OutOrStdout(), newParkedReports(parked))
				}
				if err := printParked(cmd.OutOrStdout(), parked); err != nil {
					return err
				}
				more := ""
				if len(parked) == filter.Limit {
					more = " (--limit; there may be more)"
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), plural(len(parked), thing)+more)
				return err
			})
		},
	}
	filter.add(cmd)
	limitFlag(cmd, &filter.Limit, 100, "at most so many")
	return cmd
}

func newParkedReports(list []handlers.Parked) []parkedReport {
	reports := []parkedReport{}
	for _, p := range list {
		e := p.Event
		reports = append(reports, parkedReport{
			p.Consumer, e.ID, e.Type, e.Source, e.Topic, e.Subject, e.Sequence, e.Previous, e.Time,
			p.Reason, p.Attempts, p.NextAt, p.LastError, p.ParkedAt,
		})
	}
	return reports
}

func printParked(w io.Writer, list []handlers.Parked) error {
	if len(list) == 0 {
		return nil
	}
	table := newTable(w, "", "CONSUMER", "EVENT", "TYPE", "TOPIC", "SUBJECT", "REASON", "ATTEMPTS", "PARKED", "NEXT", "LAST ERROR")
	for _, p := range list {
		table.row(p.Consumer, p.Event.ID.String(), p.Event.Type, p.Event.Topic, orDash(p.Event.Subject), string(p.Reason),
			strconv.Itoa(p.Attempts), moment(p.ParkedAt), moment(p.NextAt), orDash(short(p.LastError)))
	}
	return table.flush()
}
