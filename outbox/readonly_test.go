package outbox_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// Postgres responds but takes no writes, after a failover for instance: what could not be acked isn't sent, which is logged
// once, and it goes on by itself.
func TestNothingIsSentWhilePostgresIsReadOnly(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pool, schema := testdb.Partitioned(t)
	var readOnly atomic.Bool
	config := pool.Config()
	config.PrepareConn = func(ctx context.Context, c *pgx.Conn) (bool, error) {
		value := "off"
		if readOnly.Load() {
			value = "on"
		}
		_, err := c.Exec(ctx, "SET default_transaction_read_only = "+value)
		return err == nil, err
	}
	other, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	var log logged
	var passes atomic.Int64
	b := setupIn(t, pool, schema, func(c *outbox.Config) {
		c.Pool, c.Logger = other, slog.New(slog.NewTextHandler(&log, nil))
		c.Listener = &outbox.Listener{Swept: func(outbox.SweptInfo) { passes.Add(1) }}
	})
	b.broker.away(true)
	b.owe(t, 40)
	readOnly.Store(true)
	poll.Until(t, "the sweep has noticed", func() bool { return log.count("takes no writes") > 0 })
	b.broker.away(false)
	b.sweepsPass(t, &passes)
	if n := len(b.broker.events()); n != 0 {
		t.Errorf("%d events were sent that could not be acked", n)
	}
	if n := log.count("takes no writes"); n != 1 {
		t.Errorf("it was logged %d times that the database takes no writes, want once", n)
	}
	readOnly.Store(false)
	poll.Until(t, "acks", func() bool { return b.count(t, "outbox_ack") == 40 })
	if n := len(b.broker.events()); n != 40 {
		t.Errorf("%d events were sent, want each once", n)
	}
}

// sweepsPass waits for the grace and for passes after it.
func (b *bundle) sweepsPass(t *testing.T, passes *atomic.Int64) {
	t.Helper()
	poll.Until(t, "the grace is over", func() bool {
		var over bool
		err := b.pool.QueryRow(t.Context(), "SELECT max(recorded_at) + $1::interval < clock_timestamp() FROM outbox", sweepGrace).Scan(&over)
		return err == nil && over
	})
	before := passes.Load()
	poll.Until(t, "passes", func() bool { return passes.Load() >= before+5 })
}

// The disk is full: acks can't be inserted. What was sent is acked first when they can, and nothing is sent twice, by the
// sweep or after a commit.
func TestNothingIsSentTwiceWhenAcknowledgementsFail(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	var log logged
	var passes atomic.Int64
	b := setup(t, func(c *outbox.Config) {
		c.SweepPage, c.Logger = 10, slog.New(slog.NewTextHandler(&log, nil))
		c.Listener = &outbox.Listener{Swept: func(outbox.SweptInfo) { passes.Add(1) }}
	})
	_, err := b.pool.Exec(ctx, `CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
		CREATE TRIGGER full_disk BEFORE INSERT ON outbox_ack FOR EACH STATEMENT EXECUTE FUNCTION full_disk()`)
	if err != nil {
		t.Fatal(err)
	}
	b.owe(t, 40)
	if err := b.credit(ctx, "a", 1); err != nil { // its ack is the acker's
		t.Fatal(err)
	}
	b.sweepsPass(t, &passes)
	if n := len(b.broker.events()); n > 11 {
		t.Errorf("%d events were sent that can't be acked, want at most a page", n)
	}
	if n := log.count("can't be written"); n < 1 || n > 3 {
		t.Errorf("%d lines about acks that can't be written, want one of each part", n)
	}
	if _, err := b.pool.Exec(ctx, "DROP FUNCTION full_disk CASCADE"); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "acks", func() bool { return b.count(t, "outbox_ack") == 41 })
	if n := len(b.broker.events()); n != 41 {
		t.Errorf("%d events were sent, want each of 41 once", n)
	}
}
