package main

import (
	"context"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/operate"
)

// parkedLister is the method of an Operator that lists dead letters or other parked events.
type parkedLister func(*operate.Operator, context.Context, operate.ParkedFilter) ([]operate.ParkedEvent, error)

func newRedriveListCommand(flags *reportFlags, use, summary, thing string, list parkedLister) *cobra.Command {
	var filter eventFlags
	cmd := &cobra.Command{
		Use:     use,
		Short:   summary,
		Example: "  rocketflow redrive " + use + " --consumer billing --subject 4711",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := filter.check(cmd, time.Now()); err != nil {
				return err
			}
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				parked, err := list(o, ctx, filter.parked())
				if err != nil {
					return err
				}
				if flags.json {
					return printJSON(cmd.OutOrStdout(), parked)
				}
				if err := printParked(cmd.OutOrStdout(), parked); err != nil {
					return err
				}
				return printListed(cmd.OutOrStdout(), len(parked), thing, filter.limit)
			})
		},
	}
	filter.addList(cmd, parkedFlags...)
	return cmd
}

func printParked(w io.Writer, list []operate.ParkedEvent) error {
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
