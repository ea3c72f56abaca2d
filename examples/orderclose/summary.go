package orderclose

import (
	"fmt"
	"io"
	"time"
)

// Summary is what a Run found.
type Summary struct {
	Orders, Confirmed, Closed, Refunded int
	TimedOut, Declined, Cancelled       int // of Closed

	Lost       int // committed events without effect, and orders or payments that came to no end
	Doubled    int // effects beyond the first of an event
	Misordered int // effects of an aggregate out of the order of its events
	Early      int // orders closed for timeout before their time

	Broken []string // invariants that don't hold, each with how often: stock, money, events against rows

	Lateness Spread // of timeouts: from pay_by to the close
	Latency  Spread // of events: from their recording to their effect
}

// OK reports whether no promise was broken.
func (s Summary) OK() bool {
	return s.Lost == 0 && s.Doubled == 0 && s.Misordered == 0 && s.Early == 0 && len(s.Broken) == 0
}

// String is the line that ends a run.
func (s Summary) String() string {
	return fmt.Sprintf("demo: orders=%d confirmed=%d closed=%d refunded=%d lost=%d doubled=%d misordered=%d early=%d",
		s.Orders, s.Confirmed, s.Closed, s.Refunded, s.Lost, s.Doubled, s.Misordered, s.Early)
}

func (s Summary) print(w io.Writer, took time.Duration) {
	fmt.Fprintf(w, "%d orders in %v: %d confirmed, %d closed (%d not paid in time, %d declined, %d cancelled), %d payments refunded\n",
		s.Orders, took.Round(100*time.Millisecond), s.Confirmed, s.Closed, s.TimedOut, s.Declined, s.Cancelled, s.Refunded)
	fmt.Fprintf(w, "timeouts late by  %v\n", s.Lateness)
	fmt.Fprintf(w, "publish to effect %v\n", s.Latency)
	for _, invariant := range s.Broken {
		fmt.Fprintf(w, "BROKEN: %s\n", invariant)
	}
	fmt.Fprintln(w, s)
}

// Spread sums up measured durations.
type Spread struct {
	Count              int
	Min, P50, P99, Max time.Duration
}

// spread reads a sorted list.
func spread(sorted []time.Duration) Spread {
	n := len(sorted)
	if n == 0 {
		return Spread{}
	}
	return Spread{Count: n, Min: sorted[0], P50: sorted[n/2], P99: sorted[n*99/100], Max: sorted[n-1]}
}

func (s Spread) String() string {
	round := func(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
	return fmt.Sprintf("p50 %v, p99 %v, max %v, min %v (%d)", round(s.P50), round(s.P99), round(s.Max), round(s.Min), s.Count)
}
