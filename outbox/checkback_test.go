package outbox_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/outbox"
)

// noSweep leaves the rescue to the check-back.
func noSweep(c *outbox.Config) { c.SweepGrace, c.SweepInterval = time.Hour, time.Hour }

func TestCheckBackFollowsRowAndAcknowledgement(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	away := fmt.Errorf("%w: no response", broker.ErrUnavailable)

	t.Run("committed", func(t *testing.T) {
		t.Parallel()
		b := setup(t, noSweep)
		b.broker.set("commit", away)
		b.broker.set("send", away)
		if err := b.credit(ctx, "a", 1); err != nil {
			t.Fatal(err)
		}
		b.broker.set("commit", nil)
		if got := b.broker.checkAll(ctx); !slices.Equal(got, []broker.Decision{broker.Commit}) {
			t.Fatalf("decisions %v", got)
		}
		if n := b.count(t, "outbox_ack"); n != 1 {
			t.Errorf("%d acks when the check is decided, want 1", n)
		}
	})
	t.Run("out already", func(t *testing.T) {
		t.Parallel()
		b := setup(t, noSweep)
		b.broker.set("commit", away) // the end is lost, the relay sends
		if err := b.credit(ctx, "a", 1); err != nil {
			t.Fatal(err)
		}
		poll.Until(t, "ack", func() bool { return b.count(t, "outbox_ack") == 1 })
		b.broker.set("commit", nil)
		if got := b.broker.checkAll(ctx); !slices.Equal(got, []broker.Decision{broker.Rollback}) {
			t.Fatalf("decisions %v", got)
		}
		if n := len(b.broker.events()); n != 1 {
			t.Errorf("delivered %d times", n)
		}
	})
	t.Run("perhaps open, then committed", func(t *testing.T) {
		t.Parallel()
		b := setup(t, noSweep)
		lock, err := b.pool.Begin(ctx) // keeps the commit waiting: a deferred trigger wants this row
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Rollback(ctx)
		if _, err := b.pool.Exec(ctx, `CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(hashtext(TG_TABLE_SCHEMA)); RETURN NULL; END $$;
			CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON account DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()`); err != nil {
			t.Fatal(err)
		}
		if _, err := lock.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtext($1))", b.schema); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- b.credit(ctx, "a", 1) }()
		poll.Until(t, "half message", func() bool { return b.broker.open() == 1 })
		if got := b.broker.checkAll(ctx); !slices.Equal(got, []broker.Decision{broker.Unknown}) {
			t.Fatalf("decisions %v while the transaction is open", got)
		}
		_ = lock.Rollback(ctx)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if n := len(b.broker.events()); n != 1 {
			t.Errorf("delivered %d times", n)
		}
	})
	t.Run("never committed", func(t *testing.T) {
		t.Parallel()
		b := setup(t, func(c *outbox.Config) { c.SweepGrace, c.MaxTransaction = time.Hour, time.Millisecond })
		b.broker.set("rollback", away)
		err := b.outbox.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
			if err := tx.Publish(ctx, credited{"a", 1}); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED); INSERT INTO child VALUES (1)")
			return err
		})
		if err == nil {
			t.Fatal("committed")
		}
		b.broker.set("rollback", nil)
		if got := b.broker.checkAll(ctx); !slices.Equal(got, []broker.Decision{broker.Rollback}) {
			t.Fatalf("decisions %v", got)
		}
	})
	t.Run("another database", func(t *testing.T) {
		t.Parallel()
		b, other := setup(t, noSweep), setup(t, noSweep)
		b.broker.set("commit", away)
		b.broker.set("send", away)
		if err := b.credit(ctx, "a", 1); err != nil {
			t.Fatal(err)
		}
		b.broker.mu.Lock()
		b.broker.check = other.broker.check
		b.broker.mu.Unlock()
		if got := b.broker.checkAll(ctx); !slices.Equal(got, []broker.Decision{broker.Unknown}) {
			t.Fatalf("decisions %v", got)
		}
	})
	t.Run("database away", func(t *testing.T) {
		t.Parallel()
		b := setup(t, noSweep)
		b.broker.set("commit", away)
		b.broker.set("send", away)
		if err := b.credit(ctx, "a", 1); err != nil {
			t.Fatal(err)
		}
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if got := b.broker.checkAll(ended); !slices.Equal(got, []broker.Decision{broker.Unknown}) {
			t.Fatalf("decisions %v", got)
		}
	})
}

// A listener that panics, or ends its goroutine, prevents no decision.
func TestCheckBackSurvivesABadListener(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	bad := []func(){func() { panic("listener") }, runtime.Goexit}
	b := setup(t, func(c *outbox.Config) {
		noSweep(c)
		c.Listener = &outbox.Listener{Checked: func(outbox.CheckedInfo) {
			if len(bad) > 0 {
				f := bad[0]
				bad = bad[1:]
				f()
			}
		}}
	})
	away := fmt.Errorf("%w: no response", broker.ErrUnavailable)
	b.broker.set("commit", away)
	b.broker.set("send", away)
	if err := b.credit(ctx, "a", 1); err != nil {
		t.Fatal(err)
	}
	if got := b.broker.checkAll(ctx); !slices.Equal(got, []broker.Decision{broker.Commit}) { // whose end fails
		t.Fatalf("decisions %v beside a panic", got)
	}
	b.broker.set("commit", nil)
	if got := b.broker.checkAll(ctx); !slices.Equal(got, []broker.Decision{broker.Commit}) {
		t.Fatalf("decisions %v beside a Goexit", got)
	}
}

// The broker checks back again while a slow check-back is being decided: only one of them may commit.
func TestRepeatedCheckBacksDeliverOnce(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t, noSweep)
	away := fmt.Errorf("%w: no response", broker.ErrUnavailable)
	b.broker.set("commit", away)
	b.broker.set("send", away)
	if err := b.credit(ctx, "a", 1); err != nil {
		t.Fatal(err)
	}
	b.broker.mu.Lock()
	check := b.broker.check
	var c broker.Check
	for id, m := range b.broker.halves {
		c = broker.Check{Half: broker.Half{MessageID: id}, Message: broker.Delivery{Message: m}}
	}
	b.broker.mu.Unlock()

	first, done := check(ctx, c)
	if first != broker.Commit {
		t.Fatalf("first decision %v", first)
	}
	for range 3 { // the first decision is on its way
		if again, _ := check(ctx, c); again != broker.Unknown {
			t.Fatalf("decision %v while another is on its way", again)
		}
	}
	done(nil)
	if again, _ := check(ctx, c); again != broker.Rollback {
		t.Fatalf("decision %v after it went out", again)
	}
}
