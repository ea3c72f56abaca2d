package outbox_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// ahead is a machine's clock that is wrong.
type ahead struct {
	rocketflow.Clock
	by time.Duration
}

func (a ahead) Now() time.Time { return a.Clock.Now().Add(a.by) }

// A process whose clock is a month ahead, or behind, drops nothing because of it, makes the partitions of Postgres' days,
// and logs once that its clock is wrong.
func TestWrongClockIsReportedAndCorrected(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]time.Duration{"ahead": 32 * 24 * time.Hour, "behind": -32 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool, schema := testdb.Partitioned(t)
			b := setupIn(t, pool, schema, nil)
			if err := b.credit(t.Context(), "a", 1); err != nil {
				t.Fatal(err)
			}
			poll.Until(t, "ack", func() bool { return b.count(t, "outbox_ack") == 1 })
			partitions := func() (names []string) {
				err := pool.QueryRow(t.Context(), "SELECT array_agg(inhrelid::regclass::text ORDER BY 1) FROM pg_inherits WHERE inhparent = 'outbox'::regclass").Scan(&names)
				if err != nil {
					t.Fatal(err)
				}
				return names
			}
			before := partitions()
			if _, err := pool.Exec(t.Context(), "UPDATE outbox_retention SET begun_at = '-infinity'"); err != nil {
				t.Fatal(err)
			}
			var log logged
			other := b.start(t, func(c *outbox.Config) {
				c.Clock, c.Logger = ahead{clock.System{}, by}, slog.New(slog.NewTextHandler(&log, nil))
			})
			wrong := &bundle{pool: pool, schema: schema, broker: b.broker, outbox: other}
			poll.Until(t, "retention ran", func() bool {
				var ran bool
				return pool.QueryRow(t.Context(), "SELECT begun_at > '-infinity' FROM outbox_retention").Scan(&ran) == nil && ran
			})
			if after := partitions(); len(after) != len(before) {
				t.Errorf("partitions were %v, are %v", before, after)
			}
			if events, acks := b.count(t, "outbox"), b.count(t, "outbox_ack"); events != 1 || acks != 1 {
				t.Errorf("%d events and %d acks are left, want 1 and 1", events, acks)
			}
			if n := log.count("clock differs"); n != 1 {
				t.Errorf("it was logged %d times that the clock is wrong, want once", n)
			}
			if err := wrong.credit(t.Context(), "a", 1); err != nil {
				t.Fatal(err)
			}
			poll.Until(t, "its event is out", func() bool { return len(b.broker.events()) == 2 })
			chain(t, b.broker.events())
		})
	}
}

// timeless is a connection's tracer that has the reading of Postgres' time fail while it is on, as if the connection broke then.
type timeless struct{ on atomic.Bool }

func (x *timeless) TraceBatchStart(ctx context.Context, _ *pgx.Conn, b pgx.TraceBatchStartData) context.Context {
	reads := func(q *pgx.QueuedQuery) bool { return strings.HasPrefix(q.SQL, "-- name: Now\n") }
	if x.on.Load() && slices.ContainsFunc(b.Batch.QueuedQueries, reads) {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		return ctx
	}
	return ctx
}

func (*timeless) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (*timeless) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

// The rest of a tracer.
func (*timeless) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (*timeless) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// A process that can't compare its clock with Postgres' doesn't start: it could give ids the time of a wrong clock, and consumers
// would take its events for too old.
func TestStartNeedsPostgresTime(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Partitioned(t)
	b := setupIn(t, pool, schema, nil)
	broken := &timeless{}
	config := pool.Config()
	config.ConnConfig.Tracer = broken
	traced, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(traced.Close)
	o, err := outbox.New(outbox.Config{Pool: traced, Broker: b.broker, Source: "bank", Schema: schema, Clock: ahead{clock.System{}, -40 * 24 * time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	broken.on.Store(true)
	if err := o.Start(t.Context()); err == nil {
		t.Error("started without knowing Postgres' time")
		_ = o.Stop(t.Context())
	}
	broken.on.Store(false)
	if err := o.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := o.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}
