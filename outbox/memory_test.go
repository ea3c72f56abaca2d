package outbox_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// What is in memory is bounded by bytes, on the way from a commit and from the sweep.
func TestMemoryIsBoundedByBytes(t *testing.T) {
	t.Parallel()
	for _, swept := range []bool{false, true} {
		t.Run(fmt.Sprintf("swept=%v", swept), func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			const limit, size, events = 4 << 20, 512 << 10, 40
			b := setup(t, func(c *outbox.Config) {
				c.Path, c.RelayBytes = outbox.Relay, limit
				c.SweepGrace = 30 * time.Minute // however slow the machine: the sweep sends what is an hour old, and nothing again
			})
			b.broker.mu.Lock()
			b.broker.hold = make(chan struct{})
			release := sync.OnceFunc(func() { close(b.broker.hold) })
			b.broker.mu.Unlock()
			t.Cleanup(release)
			publish := func(ctx context.Context, tx rocketflow.Tx) error {
				for i := range events {
					e := rocketflow.Event{Topic: "t", Type: "big", Subject: fmt.Sprint(i % 5), Body: []byte(strings.Repeat("x", size))}
					if err := tx.Publish(ctx, e); err != nil {
						return err
					}
				}
				return nil
			}
			if swept {
				inner, err := b.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
				if err != nil {
					t.Fatal(err)
				}
				defer inner.Rollback(context.WithoutCancel(ctx)) // a pool with an open transaction can't be closed
				if err := publish(ctx, b.outbox.Join(inner)); err != nil {
					t.Fatal(err)
				}
				if _, err := inner.Exec(ctx, "UPDATE outbox SET recorded_at = recorded_at - interval '1 hour'"); err != nil { // all due at once
					t.Fatal(err)
				}
				if err := inner.Commit(ctx); err != nil {
					t.Fatal(err)
				}
			} else if err := testdb.Retry(func() error { return b.outbox.Within(ctx, publish) }); err != nil {
				t.Fatal(err)
			}
			most := 0
			poll.Until(t, "the relay has what it may", func() bool {
				_, bytes := b.outbox.RelayHeld()
				most = max(most, bytes)
				return bytes >= limit/2
			})
			release()
			poll.Until(t, "all are acked", func() bool {
				_, bytes := b.outbox.RelayHeld()
				most = max(most, bytes)
				return b.count(t, "outbox_ack") == events
			})
			if most > limit+size {
				t.Errorf("%d bytes in memory, want at most %d and one event", most, limit)
			}
			chain(t, b.broker.events())
		})
	}
}

// More events in one transaction than the relay has room for leave at once, in order, each once: neither the sweep nor
// its grace is waited for. What is published meanwhile doesn't overtake them.
func TestLargeTransactionDoesntWaitForTheSweep(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *outbox.Config) { c.RelayBuffer, c.SweepGrace = 100, time.Hour })
	const events = 5000
	if err := b.publish(t.Context(), events, "a", "b", "c"); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := b.publish(t.Context(), 1, "a"); err != nil {
			t.Fatal(err)
		}
	}
	poll.Until(t, "acks", func() bool { return b.count(t, "outbox_ack") == events+10 })
	if n := len(b.broker.events()); n != events+10 {
		t.Errorf("%d events were sent, want %d", n, events+10)
	}
	chain(t, b.broker.events())
}
