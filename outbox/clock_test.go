package outbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// soon is how long what a moved clock makes due may take. Every interval of these tests is longer.
const soon = 5 * time.Second

// The sweep finds what is owed as soon as its grace has passed by the clock, and tries a rejected event again as soon as
// that has rested.
func TestMovedClockWakesTheSweep(t *testing.T) {
	t.Parallel()
	pool, schema, clock := testdb.Clocked(t)
	swept := make(chan outbox.SweptInfo, 100)
	b := setupIn(t, pool, schema, func(c *outbox.Config) {
		c.Clock, c.SweepInterval, c.SweepGrace = clock, time.Minute, 5*time.Minute
		c.Listener = &outbox.Listener{Swept: func(i outbox.SweptInfo) { swept <- i }}
	})
	<-swept // of the start

	b.broker.set("prepare", broker.ErrUnavailable)
	b.broker.set("send", broker.ErrUnavailable)
	b.owe(t, 1)
	clock.FastForward(2 * time.Minute)
	if i := <-swept; i.Sent != 0 || i.Left != 1 || i.Err != nil {
		t.Errorf("swept %+v before the grace was over", i)
	}
	b.broker.set("send", nil)
	b.broker.reject("accounts")
	clock.FastForward(6 * time.Minute)
	<-swept
	b.broker.reject("")

	began := time.Now()
	clock.FastForward(time.Minute)
	poll.Until(t, "the event is out", func() bool { return len(b.broker.events()) == 1 })
	if took := time.Since(began); took > soon {
		t.Errorf("took %v", took)
	}
}

// Ten days later events have ids and partitions of the new day, though these could not be made in time, and what was
// delivered on the old one is gone.
func TestMovedClockWakesRetention(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool, schema, clock := testdb.Clocked(t)
	retained := make(chan outbox.RetainedInfo, 100)
	b := setupIn(t, pool, schema, func(c *outbox.Config) {
		c.Clock, c.Retention = clock, 7*24*time.Hour
		c.Listener = &outbox.Listener{Retained: func(i outbox.RetainedInfo) { retained <- i }}
	})
	if err := b.credit(ctx, "a", 1); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "it is acked", func() bool { return b.count(t, "outbox_ack") == 1 })
	old := clock.Now().UTC()

	clock.FastForward(10 * 24 * time.Hour)
	today := clock.Now().UTC()
	for range 20 { // while partitions are made and dropped
		if err := b.credit(ctx, "a", 1); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	poll.Until(t, "the old day is gone", func() bool {
		var gone bool
		err := pool.QueryRow(ctx, "SELECT to_regclass($1) IS NULL", "outbox"+old.Format("_p20060102")).Scan(&gone)
		return err == nil && gone
	})
	if took := time.Since(began); took > soon {
		t.Errorf("took %v", took)
	}
	if i := <-retained; i.Err != nil {
		t.Errorf("retention: %v", i.Err)
	}
	poll.Until(t, "all are acked", func() bool { return b.count(t, "outbox_ack") == 20 })
	day := today.Format("_p20060102")
	for table, want := range map[string]int{"outbox_default": 0, "outbox_ack_default": 0, "outbox" + day: 20, "outbox_ack" + day: 20} {
		if n := b.count(t, table); n != want {
			t.Errorf("%s holds %d rows, want %d", table, n, want)
		}
	}
	events := b.broker.events()
	chain(t, events)
	if e := events[1]; len(events) != 21 || e.Time.Sub(old) < 9*24*time.Hour || time.Unix(e.ID.Time().UnixTime()).Sub(today).Abs() > time.Minute {
		t.Errorf("%d events, the second is %s of %v", len(events), e.ID, e.Time)
	}
}
