package outbox_test

import (
	"sync/atomic"
	"testing"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

// Sweep, rejections, acks, retention and what operators do work in each of pgx's modes, so also without prepared
// statements.
func TestSweepWorksInAllExecModes(t *testing.T) {
	t.Parallel()
	for _, mode := range testdb.Modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			direct, schema := testdb.Partitioned(t)
			pool := testdb.Mode(t, direct, mode)
			var failed atomic.Value
			b := setupIn(t, direct, schema, func(c *outbox.Config) {
				c.Pool, c.SweepPage, c.MaxBacklog = pool, 10, 50
				c.Listener = &outbox.Listener{
					Swept: func(i outbox.SweptInfo) {
						if i.Err != nil {
							failed.Store(i.Err)
						}
					},
					Retained: func(i outbox.RetainedInfo) {
						if i.Err != nil {
							failed.Store(i.Err)
						}
					},
				}
			})
			b.broker.reject("missing")
			_, err := direct.Exec(ctx, `INSERT INTO outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, headers, body)
				SELECT gen_random_uuid(), 'bank', CASE WHEN i % 4 = 0 THEN 'missing' ELSE 'accounts' END, 't', 'a' || i, 1000 + i, 0,
					clock_timestamp() - interval '1 hour', 'application/json', '{"k": "v"}', '{}' FROM generate_series(1, 60) i`)
			if err != nil {
				t.Fatal(err)
			}
			poll.Until(t, "acks", func() bool { return b.count(t, "outbox_ack") == 45 })
			poll.Until(t, "rejections", func() bool { return b.count(t, "outbox_rejected") == 15 && len(b.outbox.Rejected()) == 1 })
			poll.Until(t, "the backlog is 15", func() bool { n, _, err := b.outbox.Backlog(ctx); return err == nil && n == 15 })
			operator := testoperator.New(t, pool, schema)
			list, err := operator.RejectedEvents(ctx, operate.RejectedFilter{Topic: "missing", Limit: 2})
			if err != nil || len(list) != 2 {
				t.Fatalf("%d are listed (%v)", len(list), err)
			}
			if n, err := operator.RedirectRejected(ctx, operate.RejectedFilter{EventID: list[0].Event.ID}, "accounts"); err != nil || n != 1 {
				t.Errorf("redirected %d (%v)", n, err)
			}
			if n, err := operator.DiscardRejected(ctx, operate.RejectedFilter{EventID: list[1].Event.ID}, "test"); err != nil || n != 1 {
				t.Errorf("discarded %d (%v)", n, err)
			}
			if n, err := operator.RetryRejected(ctx, operate.RejectedFilter{All: true}); err != nil || n != 13 {
				t.Errorf("retried %d (%v)", n, err)
			}
			b.broker.reject("")
			poll.Until(t, "all the others", func() bool { return len(b.broker.events()) >= 45+1+13 && b.count(t, "outbox_rejected") == 0 })
			if h := b.broker.events()[0].Headers["k"]; h != "v" {
				t.Errorf("the header is %q", h)
			}
			if err := failed.Load(); err != nil {
				t.Error(err)
			}
		})
	}
}
