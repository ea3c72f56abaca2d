package main

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/internal/inspect"
)

func newInspectStreamCommand(flags *reportFlags) *cobra.Command {
	var topic string
	var limit int
	cmd := &cobra.Command{
		Use:   "stream SUBJECT",
		Short: "Show the streams of an aggregate: what was published, how far consumers are, what is parked",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkLimit(limit); err != nil {
				return err
			}
			ctx, subject := cmd.Context(), args[0]
			return flags.report(ctx, func(r *inspect.Reader) error {
				s, err := r.Subject(ctx, subject, topic, limit)
				switch {
				case err != nil:
					return err
				case s.Empty():
					return fmt.Errorf("no stream of %q in schema %q", subject, flags.schema)
				case flags.json:
					return printJSON(cmd.OutOrStdout(), s)
				}
				return printSubject(cmd.OutOrStdout(), r.Now, s)
			})
		},
	}
	cmd.Flags().StringVar(&topic, "topic", "", "only streams of this topic")
	limitFlag(cmd, &limit, 10, "at most so many events of each stream, and parked events")
	return cmd
}

func printSubject(w io.Writer, now time.Time, s *inspect.Subject) error {
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

func printStreams(w io.Writer, now time.Time, s *inspect.Subject) error {
	fmt.Fprintln(w, "published here, newest first")
	table := newTable(w, "  ", "SOURCE", "TOPIC", "SEQUENCE", "EVENT", "TYPE", "RECORDED", "BROKER")
	for _, stream := range s.Streams {
		shown := false
		for _, e := range s.Events {
			if e.Source != stream.Source || e.Topic != stream.Topic {
				continue
			}
			state := "owed for " + span(now.Sub(e.RecordedAt))
			if !e.AckedAt.IsZero() {
				state = "confirmed"
			}
			table.row(e.Source, e.Topic, strconv.FormatInt(e.Sequence, 10), e.ID.String(), e.Type, moment(e.RecordedAt), state)
			shown = true
		}
		if !shown { // its events are past retention
			table.row(stream.Source, stream.Topic, strconv.FormatInt(stream.Sequence, 10), "-", "-", "-", "-")
		}
	}
	return table.flush()
}

func printPositions(w io.Writer, list []inspect.Position) error {
	fmt.Fprintln(w, "positions of consumers")
	table := newTable(w, "  ", "CONSUMER", "SOURCE", "TOPIC", "POSITION", "BEHIND")
	for _, p := range list {
		behind := "-" // another database knows
		if p.Behind != nil {
			behind = count(*p.Behind)
		}
		table.row(p.Consumer, p.Source, p.Topic, strconv.FormatInt(p.Sequence, 10), behind)
	}
	return table.flush()
}

func printStreamParked(w io.Writer, now time.Time, list []inspect.StreamParked) error {
	fmt.Fprintln(w, "parked, first in its stream first")
	table := newTable(w, "  ", "CONSUMER", "TOPIC", "SEQUENCE", "AFTER", "EVENT", "TYPE", "REASON", "ATTEMPTS", "PARKED", "NEXT", "LAST ERROR")
	for _, p := range list {
		table.row(p.Consumer, p.Topic, strconv.FormatInt(p.Sequence, 10), strconv.FormatInt(p.Previous, 10), p.EventID.String(), p.Type,
			string(p.Reason), strconv.Itoa(p.Attempts), away(now, p.At), next(now, p.NextAt), orDash(short(p.LastError)))
	}
	return table.flush()
}
