package outbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/jackc/pgx/v5"
	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/outbox"
)

// A transaction that is open while the sweep's mark passes on must not be skipped, however late it commits.
func TestSweepFindsWhatBecomesVisibleLate(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	swept := make(chan outbox.SweptInfo, 1000)
	b := setup(t, func(c *outbox.Config) { c.Listener = &outbox.Listener{Swept: func(i outbox.SweptInfo) { swept <- i }} })

	late, err := b.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		t.Fatal(err)
	}
	defer late.Rollback(ctx)
	if err := b.outbox.Join(late).Publish(ctx, credited{"late", 1}); err != nil {
		t.Fatal(err)
	}
	for range 10 { // others commit meanwhile, and the sweep passes by
		if err := b.credit(ctx, "quick", 1); err != nil {
			t.Fatal(err)
		}
		<-swept
	}
	poll.Until(t, "grace is over", func() bool {
		var over bool
		err := late.QueryRow(ctx, "SELECT now() + $1::interval < clock_timestamp()", sweepGrace).Scan(&over)
		return err == nil && over
	})
	if err := late.Commit(ctx); err != nil { // only the sweep can find it
		t.Fatal(err)
	}
	poll.Until(t, "the late event", func() bool { return len(b.broker.events()) == 11 })
}

// Without events the watermark follows the oldest transaction, so the sweep reads no row twice.
func TestWatermarkMovesWithoutEvents(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t, nil)
	for range 20 {
		if err := b.credit(ctx, "a", 1); err != nil {
			t.Fatal(err)
		}
	}
	poll.Until(t, "the mark is past all rows", func() bool {
		var behind int
		err := b.pool.QueryRow(ctx, "SELECT count(*) FROM outbox WHERE xid >= (SELECT mark FROM outbox_sweep)").Scan(&behind)
		return err == nil && behind == 0
	})
	if n := len(b.broker.events()); n != 20 {
		t.Errorf("%d events delivered, want 20", n)
	}
}

// What a dead process left is sent by another, once, and in order, with several sweeping side by side.
func TestSweepSendsWhatADeadProcessLeft(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t, func(c *outbox.Config) { c.SweepPage = 7 })
	b.start(t, func(c *outbox.Config) { c.SweepPage = 7 })
	// As a process leaves it that dies right after its commit.
	err := b.outbox.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
		inner, err := b.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
		if err != nil {
			return err
		}
		joined := b.outbox.Join(inner)
		for i := range 50 {
			if err := joined.Publish(ctx, credited{"a", int64(i)}, credited{"b", int64(i)}); err != nil {
				return err
			}
		}
		return inner.Commit(ctx)
	})
	if err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "acks", func() bool { return b.count(t, "outbox_ack") == 100 })
	events := b.broker.events()
	if len(events) != 100 {
		t.Errorf("%d events delivered, want 100", len(events))
	}
	chain(t, events)
}

// A mark from another cluster, restored with a dump, must not hide what is owed.
func TestSweepFindsEventsAfterARestore(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t, nil)
	if _, err := b.pool.Exec(ctx, "UPDATE outbox_sweep SET mark = '1000000000000'"); err != nil {
		t.Fatal(err)
	}
	inner, err := b.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.outbox.Join(inner).Publish(ctx, credited{"a", 1}); err != nil {
		t.Fatal(err)
	}
	if err := inner.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the event", func() bool { return len(b.broker.events()) == 1 })
}

func TestStopDuringSweepLosesNothing(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t, nil)
	b.broker.mu.Lock()
	b.broker.hang["prepare"], b.broker.hang["send"] = true, true
	b.broker.mu.Unlock()
	if err := b.credit(ctx, "a", 1); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := b.outbox.Stop(short); err != nil {
		t.Fatal(err)
	}
	b.broker.mu.Lock()
	clear(b.broker.hang)
	b.broker.mu.Unlock()
	if err := b.outbox.Start(ctx); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the event", func() bool { return len(b.broker.events()) >= 1 })
}

// Rejected events wait for an operator, and must not hold back others, however many they are.
func TestSweepSkipsRejectedEvents(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t, func(c *outbox.Config) { c.SweepPage = 5 })
	b.broker.reject("missing")
	inner, err := b.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		t.Fatal(err)
	}
	joined := b.outbox.Join(inner)
	for range 20 {
		if err := joined.Publish(ctx, rocketflow.Event{Topic: "missing", Type: "t", Subject: "a", Body: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := joined.Publish(ctx, credited{"a", 1}); err != nil {
		t.Fatal(err)
	}
	if err := inner.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the event behind them", func() bool { return len(b.broker.events()) == 1 })
	b.broker.reject("")
	poll.Until(t, "all", func() bool { return len(b.broker.events()) == 21 })
}
