package outbox_test

import (
	"testing"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// Whatever way pgx runs queries, events of each kind are published, joined, found by checks and acked.
func TestAllExecModesWork(t *testing.T) {
	t.Parallel()
	for _, mode := range testdb.Modes {
		for _, path := range bothPaths {
			t.Run(mode.String()+", "+path.String(), func(t *testing.T) {
				t.Parallel()
				ctx := t.Context()
				pool, schema := testdb.Partitioned(t)
				pool = testdb.Mode(t, pool, mode)
				b := setupIn(t, pool, schema, func(c *outbox.Config) { c.Path = path; noSweep(c) })
				x := &trial{bundle: b, t: t, ctx: ctx}
				publish := func(tx rocketflow.Tx, events ...rocketflow.Payload) {
					t.Helper()
					if err := tx.Publish(ctx, events...); err != nil {
						t.Fatal(err)
					}
				}
				within := func(events ...rocketflow.Payload) {
					t.Helper()
					tx, err := b.outbox.Begin(ctx, pgx.TxOptions{})
					if err != nil {
						t.Fatal(err)
					}
					publish(tx, events...)
					x.commit(tx)
				}
				headers := map[string]string{"tenant": `a "b" \c {d,e}`}
				raw := rocketflow.Event{Topic: "accounts", Type: "raw", Subject: "r", ContentType: "application/octet-stream", Headers: headers, Body: []byte{0, 1, 0xff, '\\', '"'}}
				unordered := raw
				unordered.Subject = ""
				within(credited{"a", 1})
				within(raw)
				within(raw, credited{"b", 1}, raw, unordered)
				within(unordered)
				joined := b.outbox.Join(x.owner())
				publish(joined, raw, credited{"a", 2})
				part := x.begin(joined)
				x.publish(part, "gone")
				x.rollback(part)
				x.publish(joined, "kept")
				x.commit(joined)
				want := 10
				poll.Until(t, "the events", func() bool { return len(b.broker.events()) == want && b.count(t, "outbox_ack") == want })
				for _, e := range b.broker.events() {
					if e.Type == "raw" && (string(e.Body) != string(raw.Body) || e.Headers["tenant"] != headers["tenant"]) {
						t.Errorf("event with headers %q and body %q, want %q and %q", e.Headers, e.Body, headers, raw.Body)
					}
				}
				if len(x.ran) != 1 || x.ran[0] != "kept" {
					t.Errorf("after the commit ran %q", x.ran)
				}

				b.broker.set("commit", broker.ErrUnavailable)
				b.broker.set("send", broker.ErrUnavailable)
				within(credited{"c", 1})
				b.broker.set("commit", nil)
				if path == outbox.HalfMessages {
					if got := b.broker.checkAll(ctx); len(got) != 1 || got[0] != broker.Commit {
						t.Errorf("decisions of check-backs: %v", got)
					}
				}
			})
		}
	}
}
