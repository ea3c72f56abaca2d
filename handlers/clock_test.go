package handlers

import (
	"context"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow"
	clocks "github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// soon is how long what a moved clock makes due may take. The waits of these tests are longer.
const soon = 10 * time.Second

func promptly(t *testing.T, what string, condition func() bool) {
	t.Helper()
	began := time.Now()
	poll.Until(t, what, condition)
	if took := time.Since(began); took > soon {
		t.Errorf("%s: took %v", what, took)
	}
}

// A parked event is tried again when its backoff has passed by the clock, also if the clock moves while the worker looks
// what is due.
func TestFastForwardRetry(t *testing.T) {
	t.Parallel()
	pool, schema, clock := testdb.Clocked(t)
	b, p := setupIn(t, pool, schema), newProbe()
	cfg := b.config()
	cfg.Clock, cfg.Listener = clock, p.listener()
	cfg.Retry = RetryPolicy{Attempts: 5, Base: 10 * time.Minute, Max: time.Hour, Jitter: -1}
	r := b.router(cfg)
	r.Handle("billing", topic, "order.changed", failing("bad", 3, errBroken))
	b.start(r)
	b.broker.publish(newChain("bad").next(1)...)
	began := time.Now()
	for n, wait := range []time.Duration{10 * time.Minute, 20 * time.Minute, 40 * time.Minute} {
		poll.Until(t, "it is parked", func() bool { return p.get("parked retry") == n+1 })
		if got := p.get("retried"); got != n {
			t.Fatalf("tried again %d times before the clock moved", got)
		}
		clock.FastForward(wait)
		poll.Until(t, "it is tried again", func() bool { return p.get("retried") >= n+1 })
	}
	poll.Until(t, "it ran", func() bool { return b.effectCount() == 1 && b.broker.idle() })
	if took := time.Since(began); took > 2*maxWait {
		t.Errorf("three retries took %v: the worker rested", took)
	}
}

// An event waits for its predecessor in memory, then parked, then is adopted, all by the clock.
func TestFastForwardGap(t *testing.T) {
	t.Parallel()
	pool, schema, clock := testdb.Clocked(t)
	b, p := setupIn(t, pool, schema), newProbe()
	cfg := b.config()
	cfg.Clock, cfg.Listener, cfg.GapWait, cfg.AdoptAfter = clock, p.listener(), 10*time.Minute, time.Hour
	r := b.router(cfg)
	r.Handle("billing", topic, "order.changed", effect)
	b.start(r)
	events := newChain("cut").at(time.Now().Add(-2*time.Hour), 2)
	b.broker.publish(events[1])
	poll.Until(t, "it waits in memory", func() bool { return p.get("gap") == 1 })
	clock.FastForward(10 * time.Minute)
	promptly(t, "it is parked", func() bool { return b.parkedCount(Gap) == 1 })
	clock.FastForward(time.Hour)
	promptly(t, "it is adopted", func() bool { return b.effectCount() == 1 })
}

// Followers whose earlier event was deleted by hand are found when the clock moves, too.
func TestFastForwardStranded(t *testing.T) {
	t.Parallel()
	pool, schema, clock := testdb.Clocked(t)
	b, p := setupIn(t, pool, schema), newProbe()
	cfg := b.config()
	cfg.Clock, cfg.Listener, cfg.Retry.Attempts = clock, p.listener(), 1
	r := b.router(cfg)
	r.Handle("billing", topic, "order.changed", failing("bad", always, errBroken))
	b.start(r)
	b.broker.publish(newChain("bad").next(2)...)
	poll.Until(t, "one is dead, one waits behind it", func() bool { return b.parkedCount(DeadLetter) == 1 && b.parkedCount(Gap) == 1 })
	if _, err := pool.Exec(t.Context(), "DELETE FROM parked WHERE reason = 'dead'"); err != nil {
		t.Fatal(err)
	}
	clock.FastForward(2 * strandedInterval)
	promptly(t, "it is looked at", func() bool { return b.count("SELECT count(*) FROM parked WHERE next_at < 'infinity'") == 1 })
}

// Ten days later the inbox has the new day's partition, and recognizes duplicates; what is older than the retentions is
// gone.
func TestFastForwardRetention(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool, schema, clock := testdb.Clocked(t)
	b, p := setupIn(t, pool, schema), newProbe()
	cfg := b.config()
	latency := make(chan time.Duration, 100)
	cfg.Clock, cfg.Listener, cfg.InboxRetention, cfg.PositionRetention = clock, p.listener(), 7*24*time.Hour, 8*24*time.Hour
	cfg.Listener.Handled = func(i HandledInfo) { latency <- i.Latency }
	r := b.router(cfg)
	r.Handle("billing", topic, "order.changed", effect)
	b.start(r)
	now := func() rocketflow.Event {
		e := loose("order.changed", "loose")
		e.ID, e.Time = clocks.Stamp(clock, e.ID), clock.Now()
		return e
	}
	old := "inbox" + clock.Now().UTC().Format("_p20060102")
	b.broker.publish(now(), newChain("a").next(1)[0])
	poll.Until(t, "both ran", func() bool { return b.effectCount() == 2 && b.broker.idle() })
	if n := b.count("SELECT count(*) FROM " + old); n != 1 {
		t.Errorf("%s holds %d rows, want 1", old, n)
	}
	<-latency
	<-latency

	clock.FastForward(10 * 24 * time.Hour)
	for range 20 { // while partitions are made and dropped
		e := now()
		b.broker.publish(e, e)
	}
	promptly(t, "the old day and the old stream are forgotten", func() bool {
		var gone bool
		err := pool.QueryRow(ctx, "SELECT to_regclass($1) IS NULL AND NOT EXISTS (SELECT FROM position)", old).Scan(&gone)
		return err == nil && gone
	})
	poll.Until(t, "all are settled", func() bool { return b.broker.idle() })
	if ran, twice := b.effectCount(), p.get("duplicate"); ran != 22 || twice != 20 {
		t.Errorf("%d effects and %d duplicates, want 22 and 20", ran, twice)
	}
	today := "inbox" + clock.Now().UTC().Format("_p20060102")
	for table, want := range map[string]int{today: 20, "inbox_default": 0} {
		if n := b.count("SELECT count(*) FROM " + table); n != want {
			t.Errorf("%s holds %d rows, want %d", table, n, want)
		}
	}
	for range 20 {
		if l := <-latency; l < 0 || l > time.Minute {
			t.Errorf("latency %v", l)
		}
	}
}
