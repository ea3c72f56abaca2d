package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/operate"
)

// eventReport is an event as inspect event prints it.
type eventReport struct {
	*operate.EventStatus
	Body any `json:"body,omitempty"` // base64 unless it is JSON
}

func newInspectEventCommand(flags *reportFlags) *cobra.Command {
	var body bool
	cmd := &cobra.Command{
		Use:   "event ID",
		Short: "Show what became of an event: acknowledged or owed, handled, parked or dead",
		Long: `Shows whether the event was recorded in this schema and acknowledged by the broker, and its state in each consumer:
  handled    its effect is committed; or it was discarded, or the consumer has no handler for it
  retry      its handler failed and is called again
  gap        it waits until an event before it is handled
  busy       it waits until the handler of its stream, which takes long, has returned
  paused     it waits until its handler or its stream is resumed: see rocketflow pause list
  unhandled  it waits for a process that has its handler: see rocketflow redrive retire
  dead       its handler failed for good: see rocketflow redrive
  not seen   the consumer has not received it; or it is not ordered and the consumer has no handler for it
  no trace   it is the event of a timeout: the line "timeout" says what became of it
Of an ordered event that another service published and that was handled, only the position of its stream remains, not its
id: look for it in the publisher's schema, and use rocketflow inspect stream in this one.`,
		Example: "  rocketflow inspect event 0190b6a5-7c1e-7d3a-9b6e-3f5d2c1a0e4f --body --schema order_rocketflow",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseEventID(args[0])
			if err != nil {
				return err
			}
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				e, err := o.EventStatus(ctx, id)
				if errors.Is(err, operate.ErrUnknownEvent) {
					return fmt.Errorf("schema %q has no record of event %s: look in the schema of the service that published it (a handled event of another service's stream leaves only a position)", flags.schema, id)
				}
				if err != nil {
					return err
				}
				report := eventReport{EventStatus: e}
				if body {
					report.Body = bodyOf(e)
				}
				if flags.json {
					return printJSON(cmd.OutOrStdout(), report)
				}
				now, err := o.Now(ctx)
				if err != nil {
					return err
				}
				return printEvent(cmd.OutOrStdout(), now, report)
			})
		},
	}
	cmd.Flags().BoolVar(&body, "body", false, "show the body, too")
	return cmd
}

// bodyOf returns the body as JSON, or as bytes if it is something else.
func bodyOf(e *operate.EventStatus) any {
	if utf8.Valid(e.Body) && json.Valid(e.Body) {
		return json.RawMessage(e.Body)
	}
	return e.Body
}

func printEvent(w io.Writer, now time.Time, e eventReport) error {
	head := newTable(w, "")
	head.row("event", e.ID.String())
	if e.Topic != "" {
		head.row("type", e.Type)
		head.row("topic", e.Topic)
		head.row("source", orDash(e.Source))
		head.row("subject", orDash(e.Subject))
		head.row("sequence", sequence(e.EventStatus))
		head.row("recorded", momentAgo(now, e.RecordedAt))
		if e.TimeoutName != "" {
			state := ""
			if t := e.Ended; t != nil {
				state = fmt.Sprintf(": %s %s; it was due %s", endedText(t), momentAgo(now, t.EndedAt), moment(t.DueAt))
			}
			head.row("timeout", e.TimeoutName+" of "+e.TimeoutKey+state)
		}
		if e.ContentType != "" || e.Ended == nil {
			head.row("content", fmt.Sprintf("%s, %d bytes", e.ContentType, len(e.EventStatus.Body)))
		}
		if e.DataSchema != "" {
			head.row("schema", e.DataSchema)
		}
		for _, name := range slices.Sorted(maps.Keys(e.Extensions)) {
			head.row("extension", name+": "+e.Extensions[name])
		}
	}
	head.row("outbox", outboxState(now, e.EventStatus))
	if c := e.Cause; c != nil {
		head.row("published", "while "+c.Consumer+" handled event "+c.EventID.String())
	}
	if r := e.Rejected; r != nil {
		head.row("rejected", fmt.Sprintf("%s by the broker since %s: %s", plural(r.Attempts, "time"), momentAgo(now, r.Since), short(r.Reason)))
	}
	if d := e.Discarded; d != nil {
		head.row("discarded", fmt.Sprintf("%s, of type %s: %s", momentAgo(now, d.At), short(d.Type), short(d.Reason)))
	}
	if err := head.flush(); err != nil {
		return err
	}
	switch b := e.Body.(type) {
	case json.RawMessage:
		text, err := json.MarshalIndent(b, "  ", "  ")
		if err != nil {
			return fmt.Errorf("indent body: %w", err)
		}
		fmt.Fprintf(w, "body\n  %s\n", printable.JSON(text))
	case []byte:
		fmt.Fprintf(w, "body\n  %q\n", b)
	}
	if len(e.Consumers) == 0 {
		fmt.Fprintln(w, "consumers: no consumer of this schema reads the topic")
		return nil
	}
	fmt.Fprintln(w, "consumers")
	table := newTable(w, "  ", "CONSUMER", "STATE", "DETAIL")
	for _, c := range e.Consumers {
		table.row(c.Name, stateText(c.State), consumerDetail(now, e.EventStatus, c))
	}
	return table.flush()
}

func sequence(e *operate.EventStatus) string {
	switch {
	case e.Sequence == 0:
		return "- (not ordered)"
	case e.Previous == 0:
		return fmt.Sprintf("%d, the first of its stream", e.Sequence)
	}
	return fmt.Sprintf("%d, after %d", e.Sequence, e.Previous)
}

func outboxState(now time.Time, e *operate.EventStatus) string {
	switch {
	case !e.InOutbox:
		return "not in that of this schema"
	case e.AckedAt.IsZero():
		return "owed for " + span(now.Sub(e.RecordedAt))
	}
	return fmt.Sprintf("acknowledged by the broker %s (%s after it was recorded)", moment(e.AckedAt), span(e.AckedAt.Sub(e.RecordedAt)))
}

// stateText returns a state as text for people.
func stateText(s operate.HandlingState) string { return strings.ReplaceAll(string(s), "_", " ") }

func consumerDetail(now time.Time, e *operate.EventStatus, c operate.ConsumerStatus) string {
	switch {
	case c.Parked != nil:
		waits := parkedDetail(now, c.Parked)
		if c.State == operate.StateGap && c.Parked.Behind == nil {
			waits = fmt.Sprintf("waits for %s, %s", follows(e.Previous, c.Position), waits)
		}
		return waits
	case !c.HandledAt.IsZero():
		return moment(c.HandledAt)
	case c.State == operate.StateHandled:
		return "position " + strconv.FormatInt(c.Position, 10)
	case c.State == operate.StateNotSeen && e.Sequence > 0 && c.Position > 0:
		return "position " + strconv.FormatInt(c.Position, 10)
	case c.State == operate.StateNotSeen && !e.RecordedAt.IsZero() && e.RecordedAt.Before(c.BornAt):
		return "the consumer began to read the topic later, " + moment(c.BornAt)
	}
	return ""
}

// follows describes what an event behind a gap waits for.
func follows(previous, position int64) string {
	if position == 0 {
		return fmt.Sprintf("sequence %d, no event of the stream is handled", previous)
	}
	return fmt.Sprintf("sequence %d, position is %d", previous, position)
}

// parkedDetail describes since when an event is parked, what it waits for and why.
func parkedDetail(now time.Time, p *operate.ParkedStatus) string {
	parts := []string{"parked " + away(now, p.At)}
	if p.Attempts > 0 {
		parts = append(parts, plural(p.Attempts, "failed attempt"))
	}
	if !p.NextAt.IsZero() {
		parts = append(parts, "next "+next(now, p.NextAt))
	}
	if p.Behind != nil {
		parts = append(parts, fmt.Sprintf("behind %s (%s)", p.Behind.EventID, p.Behind.Reason))
	}
	if p.LastError != "" {
		parts = append(parts, "last error: "+p.LastError)
	}
	return strings.Join(parts, ", ")
}

// next returns when something is tried again, as text.
func next(now, t time.Time) string {
	switch {
	case t.IsZero():
		return "-"
	case !t.After(now):
		return "due"
	}
	return away(now, t)
}
