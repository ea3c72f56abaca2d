package operate_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/migrations"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

// inspector is a broker with one queue.
type inspector struct {
	position broker.QueuePosition
	holds    bool // each event, at offset 0
	failing  int  // the question for an event that fails, and those after it; 0: none

	mu    sync.Mutex
	asked int // about events
	sent  []uuid.UUID
}

var errFrozen = errors.New("no response")

func (b *inspector) FindMessages(_ context.Context, _, key string, _, _ time.Time) ([]broker.StoredMessage, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.asked++; b.failing > 0 && b.asked >= b.failing {
		return nil, errFrozen
	}
	if !b.holds {
		return nil, nil
	}
	return []broker.StoredMessage{{Delivery: broker.Delivery{Message: broker.Message{ID: key}, Broker: "b"}}}, nil
}

func (b *inspector) MessageByOffsetID(context.Context, string) (broker.StoredMessage, error) {
	return broker.StoredMessage{}, broker.ErrNoMessage
}

func (b *inspector) QueuePositions(context.Context, string, string) ([]broker.QueuePosition, error) {
	p := b.position
	p.Broker = "b"
	return []broker.QueuePosition{p}, nil
}

func (b *inspector) Send(_ context.Context, m broker.Message) (broker.Receipt, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	id, err := uuid.Parse(m.ID)
	b.sent = append(b.sent, id)
	return broker.Receipt{}, err
}

// books are a schema with rows that tests make.
type books struct {
	t      *testing.T
	pool   *pgxpool.Pool
	schema string
}

func newBooks(t *testing.T) books {
	t.Helper()
	pool, schema := testdb.Migrated(t)
	return books{t, pool, schema}
}

// booksNamed are a schema of this name in a database of its own.
func booksNamed(t *testing.T, schema string) books {
	t.Helper()
	pool, _ := testdb.Migrated(t)
	if err := migrations.Up(t.Context(), pool, schema); err != nil {
		t.Fatal(err)
	}
	return books{t, testdb.Open(t, pool.Config().ConnString(), schema), schema}
}

func (b books) exec(sql string, args ...any) {
	b.t.Helper()
	if _, err := b.pool.Exec(b.t.Context(), sql, args...); err != nil {
		b.t.Fatalf("%s: %v", sql, err)
	}
}

// publish records events of a type that the broker has confirmed, from some minutes ago on, and returns the id of the last; with a subject
// they have an order.
func (b books) publish(eventType, subject string, events int, ago time.Duration) (last uuid.UUID) {
	b.t.Helper()
	b.exec(`WITH published AS (
		INSERT INTO outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, body)
		SELECT (lpad(to_hex(extract(epoch FROM at)::bigint * 1000 + n), 12, '0') || '70008' || lpad(to_hex(n), 15, '0'))::uuid,
			'shop', 'orders', $1, $2, CASE WHEN $2 = '' THEN 0 ELSE n END, 0, at + n * interval '1 ms', '', ''
		FROM generate_series(1, $3) n, (SELECT now() - make_interval(secs => $4) AS at) t
		RETURNING id, recorded_at
	) INSERT INTO outbox_ack (id, acked_at) SELECT id, recorded_at FROM published`, eventType, subject, events, ago.Seconds())
	if err := b.pool.QueryRow(b.t.Context(), "SELECT id FROM outbox WHERE type = $1 ORDER BY id DESC LIMIT 1", eventType).Scan(&last); err != nil {
		b.t.Fatal(err)
	}
	return last
}

// consumer registers a consumer of topic orders.
func (b books) consumer(name string, types ...string) {
	b.t.Helper()
	b.exec("INSERT INTO consumer (name, group_name) VALUES ($1, $1)", name)
	b.exec("INSERT INTO consumer_topic (consumer, topic, born_at) VALUES ($1, 'orders', now() - interval '1 day')", name)
	b.exec("INSERT INTO consumer_handler (consumer, topic, type, registered_at) SELECT $1, 'orders', unnest($2::text[]), now() - interval '1 day'", name, types)
}

// handled records that a consumer has handled all events of the types of which it has a handler.
func (b books) handled(name string) {
	b.t.Helper()
	b.exec(`INSERT INTO inbox (consumer, source, event_id) SELECT h.consumer, o.source, o.id FROM outbox o JOIN consumer_handler h USING (topic, type)
		WHERE h.consumer = $1 ON CONFLICT DO NOTHING`, name)
}

func (b books) operator(sender operate.Sender) *operate.Operator {
	b.t.Helper()
	return testoperator.Of(b.t, operate.Config{Pool: b.pool, Schema: b.schema, Broker: sender, ResendRate: 1e6})
}

func systemOf(t *testing.T, b *inspector, all ...books) *operate.System {
	t.Helper()
	c := operate.SystemConfig{}
	if b != nil {
		c.Broker = b
	}
	for _, one := range all {
		var sender operate.Sender
		if b != nil {
			sender = b
		}
		c.Operators = append(c.Operators, one.operator(sender))
	}
	y, err := operate.NewSystem(c)
	if err != nil {
		t.Fatal(err)
	}
	return y
}

// next makes passes until this many events were read: while another test's transaction is open, younger ones are not.
func next(t *testing.T, w *operate.Watch, published int) (x *operate.Reconciliation) {
	t.Helper()
	poll.Succeeds(t, time.Minute, func() (err error) {
		if x, err = w.Next(t.Context()); err != nil {
			return err
		}
		if n, _, _, _, _ := x.Totals(); n < published {
			return fmt.Errorf("%d events were read, want %d", n, published)
		}
		return nil
	})
	return x
}

// Each event of which nothing is recorded gets its own cause, however many there are, and only those are sent again that were not handled.
func TestReconcileLooksForEachEvent(t *testing.T) {
	t.Parallel()
	const events = 300
	read := broker.QueuePosition{Committed: 1000, End: 1000}
	expired := broker.QueuePosition{Begin: 1000, Committed: 1000, End: 1000}
	for cause, c := range map[operate.MissingCause]struct {
		broker *inspector
		lastly int64 // the position; -1: none
		mended int
	}{
		operate.MissingLost:       {&inspector{position: read}, -1, events},
		operate.MissingExpired:    {&inspector{position: expired}, -1, 0},
		operate.MissingPassed:     {&inspector{position: read, holds: true}, 0, events},
		operate.MissingUnrecorded: {&inspector{position: read, holds: true}, -1, 0},
	} {
		t.Run(string(cause), func(t *testing.T) {
			t.Parallel()
			b, broker := newBooks(t), c.broker
			b.consumer("bills", "order.placed")
			b.publish("order.placed", "4711", events, 10*time.Minute)
			if c.lastly >= 0 {
				b.exec("INSERT INTO position (consumer, source, topic, subject, sequence) VALUES ('bills', 'shop', 'orders', '4711', $1)", c.lastly)
			}
			x, err := systemOf(t, broker, b).Reconcile(t.Context(), operate.ReconcileConfig{Mend: true, Limit: events})
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range x.Missing {
				if v.Cause != cause {
					t.Fatalf("the cause is %s: %+v", v.Cause, v)
				}
			}
			if n := x.Consumers[0]; n.Missing != events || n.Mended != c.mended || x.Mended != c.mended || len(x.Missing) != events || len(broker.sent) != c.mended {
				t.Errorf("%d missing, %d sent again: %+v", len(x.Missing), len(broker.sent), n)
			}
		})
	}
}

// What the broker doesn't say is not known: it is not asked again and again, and nothing is sent because of it. The next reconciliation goes on.
func TestReconcileStopsAskingABrokerThatFails(t *testing.T) {
	t.Parallel()
	b, broker := newBooks(t), &inspector{position: broker.QueuePosition{Committed: 9, End: 9}, failing: 101}
	b.consumer("bills", "order.placed")
	b.publish("order.placed", "", 300, 10*time.Minute)
	y := systemOf(t, broker, b)
	for _, want := range []struct{ asked, missing, unknown int }{{101, 100, 200}, {101, 100, 100}, {100, 100, 0}} {
		broker.asked, broker.sent = 0, nil
		x, err := y.Reconcile(t.Context(), operate.ReconcileConfig{Mend: true})
		if err != nil {
			t.Fatal(err)
		}
		c := x.Consumers[0]
		if broker.asked != want.asked || c.Missing != want.missing || c.Unknown != want.unknown || c.Mended != want.missing || len(broker.sent) != want.missing {
			t.Errorf("asked %d times, sent %d, want %+v: %+v", broker.asked, len(broker.sent), want, c)
		}
		if said := x.Broker == errFrozen.Error(); said != (want.unknown > 0) {
			t.Errorf("of the broker it says %q", x.Broker)
		}
		b.exec("INSERT INTO inbox (consumer, source, event_id) SELECT 'bills', 'shop', unnest($1::uuid[])", broker.sent)
	}
}

// A continuous reconciliation doesn't ask again for causes that last.
func TestWatchRemembersCauses(t *testing.T) {
	t.Parallel()
	b, broker := newBooks(t), &inspector{position: broker.QueuePosition{Committed: 9, End: 9}, holds: true}
	b.consumer("bills", "order.placed")
	b.publish("order.placed", "", 300, 10*time.Minute)
	watch := systemOf(t, broker, b).Watch(operate.ReconcileConfig{Limit: 1000})
	for range 2 {
		x := next(t, watch, 300)
		if broker.asked != 300 || len(x.Missing) != 300 || x.Missing[0].Cause != operate.MissingUnrecorded {
			t.Errorf("asked %d times, %d missing: %+v", broker.asked, len(x.Missing), x.Consumers)
		}
	}
}

// A consumer that has not handled very many events doesn't keep those of others from being compared, and is compared itself as soon as it has.
func TestManyOpenEventsOfAConsumer(t *testing.T) {
	t.Parallel()
	const many = 20_300
	b, broker := newBooks(t), &inspector{position: broker.QueuePosition{Committed: 0, End: many, Unread: time.Now().Add(-time.Hour)}, holds: true}
	b.consumer("slow", "order.placed")
	b.consumer("bills", "order.seen")
	b.publish("order.placed", "", many, 30*time.Minute)
	y := systemOf(t, broker, b)
	watch := y.Watch(operate.ReconcileConfig{})
	expect := func(x *operate.Reconciliation, handled, unread int) {
		t.Helper()
		bills, slow := x.Consumers[0], x.Consumers[1]
		if slow.Handled != handled || slow.Unread != unread || x.Partial != (unread > 20_000) {
			t.Errorf("partial %v, slow: %+v", x.Partial, slow)
		}
		if bills.Expected > 0 && bills.Unread+bills.Missing != 1 {
			t.Errorf("bills: %+v", bills)
		}
	}
	expect(next(t, watch, many), 0, many)
	b.publish("order.seen", "", 1, 5*time.Minute)
	expect(next(t, watch, many+1), 0, many)
	x, err := y.Reconcile(t.Context(), operate.ReconcileConfig{})
	if err != nil {
		t.Fatal(err)
	}
	expect(x, 0, many)
	b.handled("slow")
	broker.position.Committed = many - 1
	next(t, watch, many+1)                                // it sees that there is room again
	expect(next(t, watch, many-20_000+1), many-20_000, 0) // those that were only counted
}

// Schemas of the same name in two databases are two: each has its own events, missing ones and pauses.
func TestTwoDatabasesWithTheSameSchema(t *testing.T) {
	t.Parallel()
	one, other := booksNamed(t, "rocketflow"), booksNamed(t, "rocketflow")
	b := &inspector{position: broker.QueuePosition{Committed: 9, End: 9}}
	for i, db := range []books{one, other} {
		db.consumer("bills", fmt.Sprintf("order.of%d", i))
		db.publish(fmt.Sprintf("order.of%d", i), "", i+1, time.Duration(10+i)*time.Minute)
	}
	one.exec("INSERT INTO pause (consumer, kind, topic, type, subject, actor, reason) VALUES ('bills', 'consumer', '', '', '', 'maria', '')")
	y := systemOf(t, b, one, other)
	watch := y.Watch(operate.ReconcileConfig{Mend: true})
	for pass := range 2 {
		x := next(t, watch, 3)
		if len(x.Missing) != 3 || x.Mended != 3 || len(x.Consumers) != 2 || len(x.Publishers) != 2 || len(b.sent) < 3*(pass+1) {
			t.Fatalf("sent %d: %+v", len(b.sent), x)
		}
		for i, c := range x.Consumers {
			if p := x.Publishers[i]; p.Published != c.Missing || len(c.Paused) != 2-p.Published {
				t.Errorf("pass %d: %+v, %+v", pass, p, c)
			}
		}
	}
	y = systemOf(t, nil, one, other) // the broker holds nothing
	for i, db := range []books{one, other} {
		var id string
		if err := db.pool.QueryRow(t.Context(), "SELECT id::text FROM outbox ORDER BY id LIMIT 1").Scan(&id); err != nil {
			t.Fatal(err)
		}
		x, err := y.Why(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if v := x.Verdict; strings.Contains(v.For, "to resume consumer bills") != (i == 0) || len(x.Also) > 0 || i == 0 && !strings.HasSuffix(v.Command, "/"+one.pool.Config().ConnConfig.Database) {
			t.Errorf("database %d: %+v %+v", i, v, x.Also)
		}
	}
}
