//go:build !race

package rocketflowfx_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/timeout"
)

// Seen is an event without order.
type Seen struct {
	Parcel string `json:"parcel"`
}

func (s Seen) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "parcels", Type: "parcel.seen", Subject: s.Parcel, Unordered: true}
}

// Sixty days pass, each with events of streams that don't go on. The number of rows and partitions of each table stops
// growing: it is what the retentions keep.
func TestTablesDoNotGrow(t *testing.T) {
	t.Parallel()
	const (
		days   = 60
		begins = 20 // the first day on which nothing grows any more: the longest retention, and what is kept of a day
		hours  = 5  // in which a partition is dropped at the latest
		day    = 24 * time.Hour
	)
	w := rocketflowtest.New(t)
	config := rocketflowfx.Config{Service: "shop", Topics: []broker.Topic{{Name: "parcels", Queues: 2}}}
	config.Outbox.Retention, config.Outbox.StreamRetention = 3*day, 6*day
	config.Handlers.InboxRetention, config.Handlers.PositionRetention = 3*day, 10*day
	config.Outbox.TimeoutHistoryRetention = 3 * day
	handled := 0
	var timeouts *timeout.Scheduler
	s := w.Start(config, fx.Populate(&timeouts), fx.Invoke(func(router *handlers.Router) {
		handlers.On(router, "shop", func(context.Context, rocketflow.Tx, Shipped) error { return nil })
		handlers.On(router, "shop", func(_ context.Context, tx rocketflow.Tx, _ Seen) error {
			tx.AfterCommit(func() { handled++ })
			return nil
		})
	}))
	highest := map[string]int{}
	for d := range days {
		for i := range 5 {
			p := fmt.Sprintf("p-%d-%d", d, i)
			s.Publish(Shipped{p}, Shipped{p}, Seen{p})
			s.Within(func(ctx context.Context, tx rocketflow.Tx) error {
				if err := timeouts.Arm(ctx, tx, p, "lost", w.Now().Add(90*day), Seen{p}); err != nil {
					return err
				}
				_, err := timeouts.Disarm(ctx, tx, p, "lost")
				return err
			})
		}
		w.Settle()
		for range 4 { // retention looks once an hour, and finds a day in which it did
			w.Advance(day / 4)
			w.Settle()
		}
		sizes := tables(t, s, w)
		if d < begins {
			for name, n := range sizes {
				highest[name] = max(highest[name], n)
			}
		}
		// Sixty days pass here in seconds, and a pass of retention takes the time that it takes: it may still be at it. Where a
		// table was in use it comes back an hour later.
		grown := more(sizes, highest)
		for hour := 0; grown != "" && hour < hours; hour++ {
			for patience := time.Now().Add(10 * time.Second); grown != "" && time.Now().Before(patience); {
				w.Settle() // which takes a moment
				sizes = tables(t, s, w)
				grown = more(sizes, highest)
			}
			if grown != "" {
				w.Advance(time.Hour)
			}
		}
		if grown != "" {
			t.Errorf("day %d: %s, in the first %d days, and %d hours later still", d, grown, begins, hours)
		}
		if d == begins || d == days-1 {
			t.Logf("day %d: %v", d, sizes)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(highest)) {
		if highest[name] == 0 {
			t.Errorf("%s was never used", name)
		}
	}
}

// more returns what has grown by more than half beyond its maximum so far.
func more(sizes, highest map[string]int) string {
	for _, name := range slices.Sorted(maps.Keys(sizes)) {
		if n := sizes[name]; n > highest[name]*3/2 {
			return fmt.Sprintf("%s is %d, and was never more than %d", name, n, highest[name])
		}
	}
	return ""
}

// tables returns the numbers of rows and partitions of a service's tables.
func tables(t *testing.T, s *rocketflowtest.Service, w *rocketflowtest.Env) map[string]int {
	t.Helper()
	sizes := map[string]int{}
	count := func(name, sql string, args ...any) {
		var n int
		if err := s.Pool.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
			t.Fatal(err)
		}
		sizes[name] = n
	}
	for _, name := range []string{"outbox", "outbox_ack", "stream", "position", "inbox", "timeout_history"} {
		count(name, "SELECT count(*) FROM "+name)
	}
	for _, name := range []string{"outbox", "outbox_ack", "inbox", "timeout_history"} {
		count("partitions of "+name, "SELECT count(*) FROM pg_inherits WHERE inhparent = $1::text::regclass", name)
	}
	return sizes
}
