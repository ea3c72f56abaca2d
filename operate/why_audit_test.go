package operate_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

// hasLine reports whether a line of the time line has all parts.
func hasLine(x *operate.Explanation, parts ...string) bool {
	return slices.ContainsFunc(x.Timeline, func(e operate.Entry) bool {
		return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(e.Text, p) })
	})
}

func explainer(t *testing.T, o *operate.Operator) func(id string) *operate.Explanation {
	t.Helper()
	y, err := operate.NewSystem(operate.SystemConfig{Operators: []*operate.Operator{o}})
	if err != nil {
		t.Fatal(err)
	}
	return func(id string) *operate.Explanation {
		t.Helper()
		x, err := y.Why(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
}

// What an operator did to a timeout is in the time line of its key and of the events that it would have fired with, also if no row is left.
func TestWhySaysWhatOperatorsDidToATimeout(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	o := testoperator.New(t, pool, schema)
	why := explainer(t, o)
	first := uuid.Must(uuid.NewV7())
	if _, err := pool.Exec(t.Context(), `INSERT INTO timeout (key, name, epoch, due_at, next_sweep_at, source, topic, type, subject, content_type, body)
		VALUES ('invoice 7', 'reminder', $1, '2031-05-06 07:08:09+00', now(), 'shop', 'timeouts', 'remind', '7', '', '')`, first); err != nil {
		t.Fatal(err)
	}
	ctx := operate.WithActor(t.Context(), operate.Actor{Name: "maria", Reason: "the customer called"})
	ref := operate.TimeoutRef{Key: "invoice 7", Name: "reminder"}
	if err := o.MoveTimeout(ctx, ref, time.Date(2032, 1, 2, 3, 4, 5, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	var second uuid.UUID
	if err := pool.QueryRow(t.Context(), "SELECT epoch FROM timeout").Scan(&second); err != nil {
		t.Fatal(err)
	}
	if err := o.FireTimeout(ctx, ref); err != nil {
		t.Fatal(err)
	}
	if err := o.DisarmTimeout(ctx, ref); err != nil {
		t.Fatal(err)
	}
	for id, lines := range map[string][]string{
		"invoice 7":     {"moved timeout", "fired timeout", "disarmed timeout"}, // each is said once
		first.String():  {"moved timeout"},
		second.String(): {"moved timeout", "fired timeout"},
	} {
		x := why(id)
		for _, line := range lines {
			if !hasLine(x, "operator maria", line, "reminder of invoice 7", "the customer called") {
				t.Errorf("why %s has no line %q: %+v", id, line, x.Timeline)
			}
		}
		if len(x.Timeline) != len(lines)+1 || !hasLine(x, "armed for") || x.Verdict.State != operate.VerdictDone {
			t.Errorf("why %s: %+v", id, x)
		}
	}
	if !hasLine(why("invoice 7"), "moved timeout", "from 2031-05-06T07:08:09Z to 2032-01-02T03:04:05Z") {
		t.Errorf("it doesn't say when it was due: %+v", why("invoice 7").Timeline)
	}
	if v := why("invoice 8").Verdict; v.State != operate.VerdictUnknown || !strings.Contains(v.Because, "TimeoutHistoryRetention") {
		t.Errorf("got %+v", v)
	}
}

// A pause of a consumer is in the time line of an event that it has not handled yet, or handled after it.
func TestWhySaysThatAConsumerWasPaused(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	o := testoperator.New(t, pool, schema)
	why := explainer(t, o)
	id, early, other := uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7())
	for _, sql := range []string{
		`INSERT INTO consumer (name) VALUES ('billing'), ('mailing')`,
		`INSERT INTO consumer_topic (consumer, topic) VALUES ('billing', 'orders'), ('mailing', 'payments')`,
		`INSERT INTO consumer_handler (consumer, topic, type) VALUES ('billing', 'orders', 'order.closed'), ('mailing', 'payments', 'paid')`,
		`INSERT INTO outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, body)
			SELECT id::uuid, 'shop', topic, 'order.closed', '4711', 0, 0, now() - interval '1 h', '', '' FROM (VALUES ('` + id.String() + `', 'orders'), ('` + early.String() + `', 'orders'), ('` + other.String() + `', 'payments')) AS v (id, topic)`,
		`INSERT INTO inbox (event_id, consumer, source, handled_at) VALUES ('` + early.String() + `', 'billing', 'shop', now() - interval '30 min')`,
	} {
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	ctx := operate.WithActor(t.Context(), operate.Actor{Name: "maria", Reason: "a release"})
	for _, target := range []operate.PauseTarget{
		{Kind: operate.PauseConsumer, Consumer: "billing"}, {Kind: operate.PauseHandler, Consumer: "billing", Topic: "orders", Type: "order.closed"},
		{Kind: operate.PauseStream, Consumer: "billing", Topic: "orders", Subject: "4711"},
	} {
		if _, err := o.Pause(ctx, target); err != nil {
			t.Fatal(err)
		}
		if _, err := o.Resume(ctx, target); err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"paused ", "resumed "} {
			if !hasLine(why(id.String()), "operator maria", word+target.String(), "a release") {
				t.Errorf("no line says %q: %+v", word+target.String(), why(id.String()).Timeline)
			}
			for _, not := range []uuid.UUID{early, other} {
				if hasLine(why(not.String()), "operator maria") {
					t.Errorf("%s was handled before, or is of another topic: %+v", not, why(not.String()).Timeline)
				}
			}
		}
	}
}

// An event is found in the audit wherever it stands among those of a change.
func TestAuditFindsEachOfMany(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	o := testoperator.New(t, pool, schema)
	parkMany(t, pool, "dead", 1)
	if _, err := pool.Exec(t.Context(), `INSERT INTO parked SELECT consumer, gen_random_uuid(), 'dead', 1, 'infinity', '', now(), source, topic, type, subject, 0, 0, now(), '', '', '', '', NULL, ''
		FROM parked, generate_series(1, 200) WHERE consumer = 'a'`); err != nil {
		t.Fatal(err)
	}
	list, err := o.DeadLetters(t.Context(), operate.ParkedFilter{Limit: 500})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := o.RetryDeadLetters(t.Context(), operate.ParkedFilter{All: true}); n != 203 || err != nil {
		t.Fatalf("retried %d, %v", n, err)
	}
	for _, e := range list {
		entries, err := o.Audit(t.Context(), operate.AuditFilter{ID: e.Event.ID.String()})
		if err != nil || len(entries) != 1 || len(entries[0].IDs) > operate.MaxAuditIDs {
			t.Fatalf("%s: %d entries, %v", e.Event.ID, len(entries), err)
		}
	}
}
