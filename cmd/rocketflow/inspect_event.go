package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/internal/inspect"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// eventReport is an event as it is printed.
type eventReport struct {
	*inspect.Event
	Body any `json:"body,omitempty"` // base64 unless it is JSON
}

func newInspectEventCommand(flags *reportFlags) *cobra.Command {
	var body bool
	cmd := &cobra.Command{
		Use:   "event ID",
		Short: "Show what has become of an event: sent or owed, handled, parked or dead",
		Long: `Shows whether the event was recorded here and confirmed by the broker, and what each consumer of its topic made of it:
  handled   its effect is committed; or it was discarded, or stepped over for want of a handler
  retry     it failed and will be tried again
  gap       an event before it must be handled first
  dead      it failed for good and waits for a person: see rocketflow redrive
  not seen  it hasn't come yet; or, if it has no order, was stepped over for want of a handler
  no trace  it is a timeout, which leaves nothing once it is handled
Of an ordered event that came from another service and was handled only the position of its stream remains, not its id:
look for it in the publisher's schema, and with rocketflow inspect stream in this one.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := uuid.Parse(args[0])
			if err != nil {
				return usagef("%q is not the id of an event: want a UUID", args[0])
			}
			ctx := cmd.Context()
			return flags.report(ctx, func(r *inspect.Reader) error {
				e, err := r.Event(ctx, id)
				if errors.Is(err, inspect.ErrUnknownEvent) {
					return fmt.Errorf("schema %q doesn't know event %s: not in its outbox, not parked, in no inbox (handled events of another service's stream leave no id)", flags.schema, id)
				}
				if err != nil {
					return err
				}
				report := eventReport{Event: e}
				if body {
					report.Body = bodyOf(e)
				}
				if flags.json {
					return printJSON(cmd.OutOrStdout(), report)
				}
				return printEvent(cmd.OutOrStdout(), r.Now, report)
			})
		},
	}
	cmd.Flags().BoolVar(&body, "body", false, "show the content, too")
	return cmd
}

func bodyOf(e *inspect.Event) any {
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
		head.row("source", e.Source)
		head.row("subject", orDash(e.Subject))
		head.row("sequence", sequence(e.Event))
		head.row("recorded", momentAgo(now, e.RecordedAt))
		if e.TimeoutName != "" {
			head.row("timeout", e.TimeoutName+" of "+e.TimeoutKey)
		}
		head.row("content", fmt.Sprintf("%s, %d bytes", e.ContentType, len(e.Event.Body)))
	}
	head.row("outbox", outboxState(now, e.Event))
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
		fmt.Fprintln(w, "consumers: none of this schema reads the topic")
		return nil
	}
	fmt.Fprintln(w, "consumers")
	table := newTable(w, "  ", "CONSUMER", "STATE", "DETAIL")
	for _, c := range e.Consumers {
		table.row(c.Name, stateText(c.State), consumerDetail(now, e.Event, c))
	}
	return table.flush()
}

func sequence(e *inspect.Event) string {
	switch {
	case e.Sequence == 0:
		return "- (not ordered)"
	case e.Previous == 0:
		return fmt.Sprintf("%d, the first of its stream", e.Sequence)
	}
	return fmt.Sprintf("%d, after %d", e.Sequence, e.Previous)
}

func outboxState(now time.Time, e *inspect.Event) string {
	switch {
	case !e.InOutbox:
		return "not in this one"
	case e.AckedAt.IsZero():
		return "owed to the broker for " + span(now.Sub(e.RecordedAt))
	}
	return fmt.Sprintf("confirmed by the broker %s (%s after it was recorded)", moment(e.AckedAt), span(e.AckedAt.Sub(e.RecordedAt)))
}

// stateText is a state for people.
func stateText(s inspect.State) string { return strings.ReplaceAll(string(s), "_", " ") }

func consumerDetail(now time.Time, e *inspect.Event, c inspect.Consumer) string {
	switch {
	case c.Parked != nil:
		waits := parkedDetail(now, c.Parked)
		if c.State == inspect.Gap && c.Parked.Behind == nil {
			waits = fmt.Sprintf("waits for %s, %s", follows(e.Previous, c.Position), waits)
		}
		return waits
	case !c.HandledAt.IsZero():
		return moment(c.HandledAt)
	case c.State == inspect.Handled:
		return "position " + strconv.FormatInt(c.Position, 10)
	case c.State == inspect.NotSeen && e.Sequence > 0 && c.Position > 0:
		return "position " + strconv.FormatInt(c.Position, 10)
	case c.State == inspect.NotSeen && !e.RecordedAt.IsZero() && e.RecordedAt.Before(c.BornAt):
		return "it began to read the topic later, " + moment(c.BornAt)
	}
	return ""
}

// follows names what a gap waits for.
func follows(previous, position int64) string {
	if position == 0 {
		return fmt.Sprintf("sequence %d, nothing of the stream is handled", previous)
	}
	return fmt.Sprintf("sequence %d, position is %d", previous, position)
}

// parkedDetail says since when an event is parked, what for and why.
func parkedDetail(now time.Time, p *inspect.Parked) string {
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

// next is when something is looked at again.
func next(now, t time.Time) string {
	switch {
	case t.IsZero():
		return "-"
	case !t.After(now):
		return "due"
	}
	return away(now, t)
}
