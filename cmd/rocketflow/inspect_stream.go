package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/operate"
)

func newInspectStreamCommand(flags *reportFlags) *cobra.Command {
	var topic string
	var limit int
	cmd := &cobra.Command{
		Use:   "stream SUBJECT",
		Short: "Show the streams of a subject: published events, positions of consumers, parked events",
		Long: `Shows the streams of a subject: the newest events that this schema's service published, the positions of its consumers,
how many events each is behind, and the events that they have parked.`,
		Example: "  rocketflow inspect stream 4711 --topic payments --schema payment_rocketflow",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkLimit(limit); err != nil {
				return err
			}
			subject := args[0]
			if subject == "" {
				return usagef("SUBJECT is empty")
			}
			return flags.operate(cmd.Context(), func(ctx context.Context, o *operate.Operator) error {
				s, err := o.SubjectStatus(ctx, operate.SubjectFilter{Subject: subject, Topic: topic, Limit: limit})
				switch {
				case err != nil:
					return err
				case s.Empty():
					return fmt.Errorf("schema %q has no stream of subject %q: look in the schema of another service", flags.schema, subject)
				case flags.json:
					return printJSON(cmd.OutOrStdout(), s)
				}
				now, err := o.Now(ctx)
				if err != nil {
					return err
				}
				return printSubject(cmd.OutOrStdout(), now, s)
			})
		},
	}
	cmd.Flags().StringVar(&topic, "topic", "", "only streams of this topic")
	limitFlag(cmd, &limit, 10, "at most this many events of each stream, and parked events")
	return cmd
}

func printSubject(w io.Writer, now time.Time, s *operate.SubjectStatus) error {
	var sections []func() error
	if len(s.Streams) > 0 {
		sections = append(sections, func() error { return printStreams(w, now, s) })
	}
	if len(s.Positions) > 0 {
		sections = append(sections, func() error { return printPositions(w, s.Positions) })
	}
	if len(s.Parked) > 0 {
		sections = append(sections, func() error { return printStreamParked(w, now, s.Parked) })
	}
	for i, section := range sections {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := section(); err != nil {
			return err
		}
	}
	return nil
}

func printStreams(w io.Writer, now time.Time, s *operate.SubjectStatus) error {
	fmt.Fprintln(w, "published events, the newest first")
	table := newTable(w, "  ", "SOURCE", "TOPIC", "SEQUENCE", "EVENT", "TYPE", "RECORDED", "BROKER")
	for _, stream := range s.Streams {
		shown := false
		for _, e := range s.Events {
			if e.Source != stream.Source || e.Topic != stream.Topic {
				continue
			}
			state := "owed for " + span(now.Sub(e.RecordedAt))
			if !e.AckedAt.IsZero() {
				state = "acknowledged"
			}
			table.row(e.Source, e.Topic, strconv.FormatInt(e.Sequence, 10), e.ID.String(), e.Type, moment(e.RecordedAt), state)
			shown = true
		}
		if !shown { // the outbox no longer keeps its events
			table.row(stream.Source, stream.Topic, strconv.FormatInt(stream.Sequence, 10), "-", "-", "-", "-")
		}
	}
	return table.flush()
}

func printPositions(w io.Writer, list []operate.Position) error {
	fmt.Fprintln(w, "positions of consumers")
	table := newTable(w, "  ", "CONSUMER", "SOURCE", "TOPIC", "POSITION", "BEHIND")
	for _, p := range list {
		behind := "-" // another service publishes the stream
		if p.Behind != nil {
			behind = count(*p.Behind)
		}
		table.row(p.Consumer, p.Source, p.Topic, strconv.FormatInt(p.Sequence, 10), behind)
	}
	return table.flush()
}

func printStreamParked(w io.Writer, now time.Time, list []operate.ParkedInStream) error {
	fmt.Fprintln(w, "parked events, in the order of their streams")
	table := newTable(w, "  ", "CONSUMER", "TOPIC", "SEQUENCE", "AFTER", "EVENT", "TYPE", "REASON", "ATTEMPTS", "PARKED", "NEXT", "LAST ERROR")
	for _, p := range list {
		table.row(p.Consumer, p.Topic, strconv.FormatInt(p.Sequence, 10), strconv.FormatInt(p.Previous, 10), p.EventID.String(), p.Type,
			string(p.Reason), strconv.Itoa(p.Attempts), away(now, p.At), next(now, p.NextAt), orDash(short(p.LastError)))
	}
	return table.flush()
}
