package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/jackc/pgx/v5"
	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/outbox"
)

// away makes the broker unreachable, or reachable again.
func (b *logicBroker) away(yes bool) {
	var err error
	if yes {
		err = fmt.Errorf("%w: no response", broker.ErrUnavailable)
	}
	b.set("prepare", err)
	b.set("send", err)
}

// owe commits events that only a sweep can find, as those of a process that died.
func (b *bundle) owe(t testing.TB, events int) {
	t.Helper()
	inner, err := b.pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		t.Fatal(err)
	}
	joined := b.outbox.Join(inner)
	for first := 0; first < events; first += 500 {
		var all []rocketflow.Payload
		for i := first; i < min(first+500, events); i++ {
			all = append(all, credited{fmt.Sprint("account-", i%50), int64(i)})
		}
		if err := joined.Publish(t.Context(), all...); err != nil {
			t.Fatal(err)
		}
	}
	if err := inner.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Too much is owed: publishing is refused, in all processes and before anything is written, until enough is drained.
func TestPublishIsRefusedWhileTooMuchIsOwed(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	swept := make(chan struct{}, 1) // passes, each of which counts what is owed
	limited := func(c *outbox.Config) {
		c.MaxBacklog, c.SweepPage = 100, 20
		c.Listener = &outbox.Listener{Swept: func(outbox.SweptInfo) {
			select {
			case swept <- struct{}{}:
			default:
			}
		}}
	}
	b := setup(t, limited)
	other := b.start(t, limited)
	b.broker.away(true)
	publish := func(o *outbox.Outbox) error {
		return o.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error { return tx.Publish(ctx, credited{"a", 1}) })
	}
	committed := 0
	for ; ; committed++ {
		if committed >= 100 { // on a slow machine many would be taken from one count to the next
			<-swept
			<-swept
		}
		err := publish(b.outbox)
		var full *rocketflow.BackpressureError
		if errors.As(err, &full) && errors.Is(err, rocketflow.ErrBackpressure) {
			if full.Backlog <= 80 { // it takes more when a fifth of 100 is drained, or was counted twice
				t.Errorf("refused when %d events were owed", full.Backlog)
			}
			break
		}
		if err != nil || committed > 1000 {
			t.Fatalf("event %d: %v", committed, err)
		}
	}
	if committed > 120 { // what a count has just missed may be taken
		t.Errorf("%d events were taken, want some 100", committed)
	}
	if rows := b.count(t, "outbox"); rows != committed {
		t.Errorf("%d rows of %d events", rows, committed)
	}
	poll.Until(t, "the other process refuses too", func() bool { return errors.Is(publish(other), rocketflow.ErrBackpressure) })

	b.broker.away(false)
	poll.Until(t, "both take events again", func() bool { return publish(b.outbox) == nil && publish(other) == nil })
	poll.Until(t, "nothing is owed", func() bool { n, _, err := b.outbox.Backlog(ctx); return err == nil && n == 0 })
}

// The other processes know what is owed, though they have neither published nor swept it.
func TestAllProcessesReportTheBacklog(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t, func(c *outbox.Config) { c.SweepPage = 20 })
	other := b.start(t, func(c *outbox.Config) { c.SweepPage = 20 })
	b.broker.away(true)
	b.owe(t, 500)
	for name, o := range map[string]*outbox.Outbox{"one": b.outbox, "other": other} {
		poll.Until(t, name+" knows", func() bool {
			n, oldest, err := o.Backlog(ctx)
			return err == nil && n == 500 && oldest > 0
		})
	}
	b.owe(t, 300)
	poll.Until(t, "what has come since is counted", func() bool { n, _, err := other.Backlog(ctx); return err == nil && n == 800 })
	b.broker.away(false)
	poll.Until(t, "all is sent", func() bool { return len(b.broker.events()) == 800 })
	poll.Until(t, "nothing is owed", func() bool { n, _, err := other.Backlog(ctx); return err == nil && n == 0 })
}

// A broker that comes back gets what was owed at the set rate.
func TestSweepSendsAtTheDrainRate(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *outbox.Config) { c.DrainRate = 200 })
	b.broker.away(true)
	b.owe(t, 210)
	poll.Until(t, "grace is over", func() bool {
		n, oldest, err := b.outbox.Backlog(context.Background())
		return err == nil && n == 210 && oldest > sweepGrace
	})
	begin := time.Now()
	b.broker.away(false)
	poll.Until(t, "all is sent", func() bool { return len(b.broker.events()) == 210 })
	if took := time.Since(begin); took < 800*time.Millisecond {
		t.Errorf("210 events were sent in %v, want 200 a second", took)
	}
}

// While a transaction elsewhere is open for long, a sweep must not read again all that was acked since; nor because of
// one event that can't be sent.
func TestSweepReadsEachRowOnce(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	swept := make(chan outbox.SweptInfo, 1)
	b := setup(t, func(c *outbox.Config) {
		c.SweepInterval = 50 * time.Millisecond
		c.Listener = &outbox.Listener{Swept: func(i outbox.SweptInfo) {
			select {
			case swept <- i:
			default:
			}
		}}
	})
	late, err := b.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		t.Fatal(err)
	}
	defer late.Rollback(ctx)
	if err := b.outbox.Join(late).Publish(ctx, credited{"late", 1}); err != nil {
		t.Fatal(err)
	}
	b.broker.reject("missing")
	err = b.outbox.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
		return tx.Publish(ctx, rocketflow.Event{Topic: "missing", Type: "t", Subject: "a", Body: []byte("{}")})
	})
	if err != nil {
		t.Fatal(err)
	}
	const rows = 20_000
	_, err = b.pool.Exec(ctx, `WITH o AS (
			INSERT INTO outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, body)
			SELECT gen_random_uuid(), 'bank', 'accounts', 't', '', 0, 0, now(), '', '' FROM generate_series(1, $1) RETURNING id)
		INSERT INTO outbox_ack (id) SELECT id FROM o`, rows)
	if err != nil {
		t.Fatal(err)
	}
	// Postgres believes that each transaction has 20,000 events, as after an import. Some are in progress, which a pass must look for.
	if _, err := b.pool.Exec(ctx, "ANALYZE outbox_default"); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		other, err := b.pool.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Rollback(ctx)
		if _, err := other.Exec(ctx, "SELECT pg_current_xact_id()"); err != nil {
			t.Fatal(err)
		}
	}
	// Random ids are of no day, so the rows are in the default partition, alone: of the others a pass may read some rows for each
	// transaction that is in progress, also in other databases.
	touched := func() (n int64) {
		err := b.pool.QueryRow(ctx, `SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_user_tables WHERE schemaname = $1 AND relname = 'outbox_default'`,
			b.schema).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	poll.Until(t, "the rows were looked at", func() bool { return touched() >= rows })
	for range 5 {
		<-swept
	}
	poll.Within(t, time.Minute, "statistics are in", func() bool {
		before, begin := touched(), time.Now()
		var last outbox.SweptInfo
		for range 25 { // more than a second: Postgres' processes report once a second
			last = <-swept
		}
		read := touched() - before
		if read >= rows/10 {
			t.Logf("25 passes read %d rows in %v; the last one: %+v", read, time.Since(begin), last)
		}
		return read < rows/10
	})

	b.broker.reject("")
	if err := late.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "both events", func() bool { return len(b.broker.events()) == 2 })
}
