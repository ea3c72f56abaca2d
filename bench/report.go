package main

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

func report(ctx context.Context, out io.Writer, b *bed, p []published, h []handled) error {
	var postgres, synchronous, fsync string
	if err := b.pool.QueryRow(ctx, "SELECT current_setting('server_version'), current_setting('synchronous_commit'), current_setting('fsync')").
		Scan(&postgres, &synchronous, &fsync); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d cores shared by client, broker and database; %s; PostgreSQL %s, fsync=%s, synchronous_commit=%s; medians of %d rounds of %v\n\n",
		runtime.NumCPU(), runtime.Version(), postgres, fsync, synchronous, b.rounds, b.duration)

	w := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "| publishing\t| callers\t| events/s\t| of insert alone\t| of by hand\t| commit to handler p50\t| p99\t|")
	fmt.Fprintln(w, "| ---\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t|")
	for _, callers := range callerCounts {
		rate := func(way string) float64 {
			var rates []float64
			for _, m := range p {
				if m.way == way && m.callers == callers {
					rates = append(rates, m.perSec)
				}
			}
			return median(rates)
		}
		for _, way := range []string{"insert alone", "rows alone", "gear A", "relay", "by hand"} {
			var p50, p99 []float64
			for _, m := range p {
				if m.way == way && m.callers == callers && len(m.latency) > 0 {
					slices.Sort(m.latency)
					p50 = append(p50, float64(m.latency[len(m.latency)/2]))
					p99 = append(p99, float64(m.latency[len(m.latency)*99/100]))
				}
			}
			latency := "\t| \t|"
			if len(p50) > 0 {
				latency = fmt.Sprintf("%v\t| %v\t|", round(median(p50)), round(median(p99)))
			}
			fmt.Fprintf(w, "| %s\t| %d\t| %.0f\t| %.2f\t| %.2f\t| %s\n", way, callers, rate(way), rate(way)/rate("insert alone"), rate(way)/rate("by hand"), latency)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	w = tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "| handling\t| streams in flight\t| events/s\t|")
	fmt.Fprintln(w, "| ---\t| ---:\t| ---:\t|")
	var kinds []string
	for _, m := range h {
		if !slices.Contains(kinds, m.kind) {
			kinds = append(kinds, m.kind)
		}
	}
	for _, kind := range kinds {
		for _, streams := range streamCounts {
			var rates []float64
			for _, m := range h {
				if m.kind == kind && m.streams == streams {
					rates = append(rates, m.perSec)
				}
			}
			fmt.Fprintf(w, "| %s\t| %d\t| %.0f\t|\n", kind, streams, median(rates))
		}
	}
	return w.Flush()
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[len(v)/2]
}

func round(ns float64) string {
	d := time.Duration(ns)
	if d < 10*time.Millisecond {
		return strings.TrimSuffix(d.Round(10*time.Microsecond).String(), "")
	}
	return d.Round(100 * time.Microsecond).String()
}
