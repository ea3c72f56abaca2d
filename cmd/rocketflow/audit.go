package main

import (
	"context"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/operate"
)

func newAuditCommand() *cobra.Command {
	var flags reportFlags
	var filter operate.AuditFilter
	var action, operation, since, until string
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "List what operators have changed, the latest first",
		Long: `Lists the changes that operators have made to a service's tables: who, when by Postgres' clock, which action, why, and how
many things. --json adds what was selected, the first 100 ids, and the state before and after. Attempts that were refused
are marked. For the next page, set --before to the last ID.

A time is an instant, such as 2026-01-31T08:00:00Z, or how long ago, such as 90m.`,
		Example: `  rocketflow audit --since 24h --schema order_rocketflow
  rocketflow audit --id 0190b6a5-7c1e-7d3a-9b6e-3f5d2c1a0e4f    # what was done to an event
  rocketflow audit --actor maria --action dead_letters.discard --json`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			now := time.Now()
			if err := checkLimit(filter.Limit); err != nil {
				return err
			}
			if filter.Since, err = timeOf("since", since, now); err != nil {
				return err
			}
			if filter.Until, err = timeOf("until", until, now); err != nil {
				return err
			}
			if filter.Before < 0 {
				return usagef("--before %d: want the ID of an entry", filter.Before)
			}
			if operation != "" {
				if filter.Operation, err = uuid.Parse(operation); err != nil {
					return usagef("--operation %q: want a UUID", operation)
				}
			}
			filter.Action = operate.Action(action)
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				list, err := o.Audit(ctx, filter)
				switch {
				case err != nil:
					return err
				case flags.json:
					return printJSON(cmd.OutOrStdout(), list)
				}
				if err := printAudit(cmd.OutOrStdout(), list); err != nil {
					return err
				}
				return printListed(cmd.OutOrStdout(), len(list), "change", filter.Limit)
			})
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&filter.Actor, "actor", "", "only changes of this actor")
	cmd.Flags().StringVar(&action, "action", "", "only changes of this kind, such as dead_letters.retry")
	cmd.Flags().StringVar(&filter.ID, "id", "", "only changes of what has this id: an event, a subject, a timeout as KEY/NAME")
	cmd.Flags().StringVar(&operation, "operation", "", "only the entries of one call, by its id in the JSON")
	cmd.Flags().StringVar(&since, "since", "", "only changes made at this time or later")
	cmd.Flags().StringVar(&until, "until", "", "only changes made before this time")
	cmd.Flags().BoolVar(&filter.Denied, "denied", false, "only attempts that were refused")
	cmd.Flags().Int64Var(&filter.Before, "before", 0, "only entries with a lower ID: the next page")
	limitFlag(cmd, &filter.Limit, 50, "at most this many")
	return cmd
}

func printAudit(w io.Writer, list []operate.AuditEntry) error {
	if len(list) == 0 {
		return nil
	}
	t := newTable(w, "", "ID", "AT", "BY", "ACTION", "CHANGED", "WHAT", "REASON")
	for _, e := range list {
		action := string(e.Action)
		if e.Denied {
			action += " (denied)"
		}
		what := strings.Join(e.IDs[:min(len(e.IDs), 3)], " ")
		if e.Changed > 3 {
			what += " …"
		}
		t.row(strconv.FormatInt(e.ID, 10), moment(e.At), short(e.Actor), action, strconv.FormatInt(e.Changed, 10), orDash(short(what)), orDash(short(e.Reason)))
	}
	return t.flush()
}
