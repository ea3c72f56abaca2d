package frame

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

type results struct {
	options   Options
	rows      []Row
	published []published
	heated    []heated
	held      []held
	owing     owing
	handled   []handled
}

func (r *results) print(ctx context.Context, b *Bed, out io.Writer) error {
	var postgres, synchronous, fsync string
	if err := b.Pool.QueryRow(ctx, "SELECT current_setting('server_version'), current_setting('synchronous_commit'), current_setting('fsync')").
		Scan(&postgres, &synchronous, &fsync); err != nil {
		return fmt.Errorf("read Postgres' settings: %w", err)
	}
	fmt.Fprintf(out, "%d cores shared by client, broker and database; %s; PostgreSQL %s, fsync=%s, synchronous_commit=%s; medians of %d rounds of %v\n",
		runtime.NumCPU(), runtime.Version(), postgres, fsync, synchronous, r.options.Rounds, r.options.Duration)
	for _, print := range []func(io.Writer){r.printPublished, r.printHeated, r.printHeld, r.printOwing, r.printHandled} {
		w := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
		print(w)
		if err := w.Flush(); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return nil
}

func (r *results) printPublished(w io.Writer) {
	if len(r.published) == 0 {
		return
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w, "| publishing\t| callers\t| events/s\t| of insert alone\t| of by hand\t| commit to handler p50\t| p99\t| Postgres µs\t| client µs\t| broker µs\t| WAL bytes\t|")
	fmt.Fprintln(w, "| ---\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t|")
	for _, callers := range r.options.Callers {
		rate := func(row string) float64 {
			return r.median(row, callers, func(p published) float64 { return p.perSec })
		}
		for _, row := range r.rows {
			of := func(f func(published) float64) float64 { return r.median(row.Name, callers, f) }
			each := func(f func(usage) float64) float64 {
				return of(func(p published) float64 { return f(p.spent) / float64(max(p.events, 1)) })
			}
			fmt.Fprintf(w, "| %s\t| %d\t| %.0f\t| %s\t| %s\t| %s\t| %s\t| %.0f\t| %.0f\t| %.0f\t| %.0f\t|\n", row.Name, callers, rate(row.Name),
				ratio(rate(row.Name), rate(rowInsertAlone)), ratio(rate(row.Name), rate(rowByHand)),
				short(of(func(p published) float64 { return p.quantile(50) })), short(of(func(p published) float64 { return p.quantile(99) })),
				each(func(u usage) float64 { return float64(u.postgres.Nanoseconds()) / 1e3 }),
				each(func(u usage) float64 { return float64(u.client.Nanoseconds()) / 1e3 }),
				each(func(u usage) float64 { return float64(u.server.Nanoseconds()) / 1e3 }),
				each(func(u usage) float64 { return float64(u.wal) }))
		}
	}
	for _, row := range r.rows {
		var duplicates, events int
		for _, p := range r.published {
			if p.row == row.Name {
				duplicates, events = duplicates+p.duplicates, events+p.events
			}
		}
		if duplicates > 0 {
			fmt.Fprintf(w, "\n%s: %d of %d events arrived more than once.\n", row.Name, duplicates, events)
		}
	}
}

func (r *results) median(row string, callers int, f func(published) float64) float64 {
	var all []float64
	for _, p := range r.published {
		if p.row == row && p.callers == callers {
			all = append(all, f(p))
		}
	}
	return median(all)
}

func (p published) quantile(percent int) float64 { return quantile(p.latency, percent) }

// quantile returns a percentile in nanoseconds, 0 without values.
func quantile(took []time.Duration, percent int) float64 {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return float64(took[min(len(took)*percent/100, len(took)-1)])
}

func (r *results) printHeld(w io.Writer) {
	if len(r.held) == 0 {
		return
	}
	fmt.Fprintf(w, "\nDelivered events/s in the first and the last third of %v with %d callers, while a transaction elsewhere stays open:\n\n", r.options.HoldDuration, holdCallers)
	fmt.Fprintln(w, "| publishing\t| none open\t| one that has read\t| one that has written\t|")
	fmt.Fprintln(w, "| ---\t| ---:\t| ---:\t| ---:\t|")
	for _, row := range r.rows {
		fmt.Fprintf(w, "| %s\t", row.Name)
		for _, h := range holds {
			for _, m := range r.held {
				if m.row == row.Name && m.open == h.name {
					fmt.Fprintf(w, "| %.0f, %.0f\t", m.first, m.last)
				}
			}
		}
		fmt.Fprintln(w, "|")
	}
}

func (r *results) printOwing(w io.Writer) {
	o := r.owing
	if len(o.single) == 0 {
		return
	}
	fmt.Fprintf(w, "\nEvents that only the sweep sends, as if their process had died after the commit: commit to handler p50 %s, at most %s.\n",
		short(quantile(o.single, 50)), short(quantile(o.single, 100)))
	fmt.Fprintf(w, "A backlog of %d of them was drained %s after its last commit. New events meanwhile, some 200 a second: p50 %s, p99 %s; before: p50 %s, p99 %s.\n",
		o.backlog, o.drained.Round(100*time.Millisecond), short(quantile(o.meantime, 50)), short(quantile(o.meantime, 99)),
		short(quantile(o.before, 50)), short(quantile(o.before, 99)))
}

func (r *results) printHandled(w io.Writer) {
	if len(r.handled) == 0 {
		return
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w, "| handling\t| streams in flight\t| events/s\t|")
	fmt.Fprintln(w, "| ---\t| ---:\t| ---:\t|")
	for _, kind := range handlerKinds {
		for _, streams := range streamCounts {
			var rates []float64
			for _, m := range r.handled {
				if m.kind == kind.name && m.streams == streams {
					rates = append(rates, m.perSec)
				}
			}
			fmt.Fprintf(w, "| %s\t| %d\t| %.0f\t|\n", kind.name, streams, median(rates))
		}
	}
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// ratio returns "" if the other was not measured.
func ratio(a, b float64) string {
	if b == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", a/b)
}

// short returns "" for 0.
func short(ns float64) string {
	d := time.Duration(ns)
	switch {
	case d == 0:
		return ""
	case d < 10*time.Millisecond:
		return strings.Replace(d.Round(10*time.Microsecond).String(), "µs", " µs", 1)
	}
	return d.Round(100 * time.Microsecond).String()
}
