package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/rocketflow/rocketflow/internal/printable"
)

// table prints columns of text. A cell may have text from a message: nothing in it can move the cursor.
type table struct {
	w      *tabwriter.Writer
	indent string
}

// newTable returns a table with a line of heads, if there are any.
func newTable(w io.Writer, indent string, heads ...string) *table {
	t := &table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0), indent}
	if len(heads) > 0 {
		t.row(heads...)
	}
	return t
}

func (t *table) row(cells ...string) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(t.w, "\t")
		} else {
			fmt.Fprint(t.w, t.indent)
		}
		fmt.Fprint(t.w, cell(c, maxCell))
	}
	fmt.Fprintln(t.w)
}

func (t *table) flush() error { return t.w.Flush() }

// Limits of a cell, and of one between others, in bytes.
const (
	maxCell  = 1000
	maxShort = 100
)

// short returns a cell that leaves room for others.
func short(s string) string { return cell(s, maxShort) }

// cell returns text on one line.
func cell(s string, limit int) string {
	return printable.Line(strings.Join(strings.Fields(s), " "), limit)
}

// orDash returns - for an empty cell.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// moment returns an instant in UTC to the millisecond; - for the zero time.
func moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// momentAgo returns an instant and its distance from now; - for the zero time.
func momentAgo(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return moment(t) + " (" + away(now, t) + ")"
}

// away returns the distance of t from now, such as "in 5m" or "5m ago"; - for the zero time.
func away(now, t time.Time) string {
	switch {
	case t.IsZero():
		return "-"
	case t.After(now):
		return "in " + span(t.Sub(now))
	}
	return span(now.Sub(t)) + " ago"
}

// span returns a duration to about two digits.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	case d < 24*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	hours := int(d.Round(time.Hour) / time.Hour)
	return fmt.Sprintf("%dd%dh", hours/24, hours%24)
}
