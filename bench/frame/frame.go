// Package frame compares ways of changing a database and publishing an event, in one run on the same servers. It contains
// those of rocketflow and one that is written by hand. A program can add others as a [Row] and pass them to [Run].
package frame

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Options select what is measured and for how long.
type Options struct {
	Rounds       int           // of publishing and handling; medians are printed
	WarmUp       time.Duration // of the broker, before the first round
	Duration     time.Duration // of each measurement of publishing
	HoldDuration time.Duration // of each measurement beside an open transaction
	Events       int           // of each measurement of handling
	Backlog      int           // events that are owed when they are drained
	Callers      []int
	Rows         []string // names of ways; empty: all
	Parts        []string // of parts
	CPUProfile   string   // file, of this process
	Short        bool
}

var parts = []string{"publishing", "hot", "hold", "owed", "handling"}

// Flags registers flags for the options. With the defaults a run takes some ten minutes. The returned function returns the
// options once the flags are parsed.
func Flags(flags *flag.FlagSet) func() (Options, error) {
	var o Options
	var callers, rows, chosen string
	flags.IntVar(&o.Rounds, "rounds", 5, "rounds; each measures everything once, and medians are printed")
	flags.DurationVar(&o.WarmUp, "warm-up", 90*time.Second, "how long all ways of publishing are put to use before they are measured")
	flags.DurationVar(&o.Duration, "duration", 2*time.Second, "how long each measurement of publishing lasts")
	flags.DurationVar(&o.HoldDuration, "hold-duration", 6*time.Second, "how long each measurement beside an open transaction lasts")
	flags.IntVar(&o.Events, "events", 4000, "events of each measurement of handling")
	flags.IntVar(&o.Backlog, "backlog", 20_000, "events of the backlog that is drained")
	flags.StringVar(&callers, "callers", "1,8,32", "numbers of callers to publish with")
	flags.StringVar(&rows, "rows", "", "only these ways of publishing, by name, divided by commas; default all")
	flags.StringVar(&chosen, "parts", strings.Join(parts, ","), "what to measure")
	flags.StringVar(&o.CPUProfile, "cpuprofile", "", "write a CPU profile of this process to the file")
	flags.BoolVar(&o.Short, "short", false, "half a minute, with the last number of callers, that only shows that everything works")
	return func() (Options, error) {
		for _, n := range strings.Split(callers, ",") {
			count, err := strconv.Atoi(n)
			if err != nil || count < 1 {
				return o, fmt.Errorf("-callers: %q is no number of callers", n)
			}
			o.Callers = append(o.Callers, count)
		}
		if rows != "" {
			o.Rows = strings.Split(rows, ",")
		}
		o.Parts = strings.Split(chosen, ",")
		for _, p := range o.Parts {
			if !slices.Contains(parts, p) {
				return o, fmt.Errorf("-parts: %q: want some of %s", p, strings.Join(parts, ","))
			}
		}
		if o.Short {
			o.Rounds, o.WarmUp, o.Duration, o.HoldDuration, o.Events, o.Backlog = 1, 0, 300*time.Millisecond, 300*time.Millisecond, 500, 500
			o.Callers = o.Callers[len(o.Callers)-1:]
		}
		return o, nil
	}
}

// Row is a way of publishing, which gets a row in the tables.
type Row struct {
	Name string
	// Open prepares the way of publishing and its consumer. It reports each commit and each arrival to watch.
	Open func(ctx context.Context, b *Bed, watch *Stopwatch) (*Way, error)
}

// Way is an opened way of publishing.
type Way struct {
	// Publish runs one business transaction for an account and publishes its event.
	Publish func(ctx context.Context, account string, cents int64) error
	Close   func()
	Silent  bool // it publishes no events
	// Server is the id of the process whose CPU time is measured as the broker's.
	// Defaults to the broker's process.
	Server int
}

// Run measures, on the servers that DATABASE_URL and ROCKETMQ_NAMESRV name, rocketflow's rows and others, and prints the results as Markdown.
func Run(ctx context.Context, o Options, out io.Writer, others ...Row) (err error) {
	rows := append(ownRows(), others...)
	for _, name := range o.Rows {
		if !slices.ContainsFunc(rows, func(r Row) bool { return r.Name == name }) {
			return fmt.Errorf("-rows: there is no %q", name)
		}
	}
	rows = slices.DeleteFunc(rows, func(r Row) bool { return len(o.Rows) > 0 && !slices.Contains(o.Rows, r.Name) })
	b, err := NewBed(ctx, os.Getenv("DATABASE_URL"), os.Getenv("ROCKETMQ_NAMESRV"))
	if err != nil {
		return err
	}
	defer b.Close()
	if o.CPUProfile != "" {
		f, err := os.Create(o.CPUProfile)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	r := results{options: o, rows: rows}
	for part, measure := range map[string]func() error{
		"publishing": func() (err error) { r.published, err = b.publishing(ctx, o, rows); return err },
		"hot":        func() (err error) { r.heated, err = b.heating(ctx, o); return err },
		"hold":       func() (err error) { r.held, err = b.holding(ctx, o, rows); return err },
		"owed":       func() (err error) { r.owing, err = b.owed(ctx, o); return err },
		"handling":   func() (err error) { r.handled, err = b.handling(ctx, o); return err },
	} {
		if slices.Contains(o.Parts, part) {
			if err := measure(); err != nil {
				return fmt.Errorf("%s: %w", part, err)
			}
		}
	}
	return r.print(ctx, b, out)
}
