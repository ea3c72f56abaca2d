// Package testconsole makes services with something of everything for tests of the console.
package testconsole

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/console"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

// Hostile is text that would do something on a page that doesn't escape it: run a script, reorder a line.
const Hostile = `<script>alert("x")</script><img src=x onerror=alert(1)>` + "\u202e\x1b[31m"

// Secret is in the bodies of events and the data of sagas, and nowhere else.
const Secret = "4929-1234-5678-9012"

// Service is a schema with rows.
type Service struct {
	Pool     *pgxpool.Pool
	Schema   string
	Operator *operate.Operator
	Sent     *Sender
	Sagas    []saga.Graph // of Start's console.Service

	Poison   uuid.UUID // a dead letter of the consumer billing, the head of stream 4711, with two events behind it
	Followed uuid.UUID // the first of these
	Loose    uuid.UUID // a dead letter of billing without order, with a hostile error
	Owed     uuid.UUID // an event that the broker has not confirmed
	Handled  uuid.UUID // an event that billing has handled
}

// Sender keeps the ids of the messages that it is given.
type Sender struct {
	mu  sync.Mutex
	ids []string
}

// Send keeps the message's id.
func (s *Sender) Send(_ context.Context, m broker.Message) (broker.Receipt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids = append(s.ids, m.ID)
	return broker.Receipt{MessageID: m.ID}, nil
}

// IDs returns the ids of the messages.
func (s *Sender) IDs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.ids...)
}

// New makes a service with the source name in a schema of its own.
func New(t testing.TB, name string) *Service {
	t.Helper()
	pool, schema := testdb.Partitioned(t)
	s := &Service{Pool: pool, Schema: schema, Sent: &Sender{}}
	s.Operator = testoperator.Of(t, operate.Config{Pool: pool, Schema: schema, Broker: s.Sent})
	s.Exec(t, "UPDATE installation SET source = $1, claimed_at = now()", name)
	s.Exec(t, `INSERT INTO consumer (name, group_name) VALUES ('billing', 'billing'), ('mailing', 'mailing')`)
	s.Exec(t, `INSERT INTO consumer_topic (consumer, topic) VALUES ('billing', 'orders'), ('mailing', 'orders')`)
	s.Exec(t, `INSERT INTO consumer_handler (consumer, topic, type) VALUES ('billing', 'orders', 'order.changed'), ('mailing', 'orders', 'order.closed')`)

	sequence := time.Now().Add(-2 * time.Minute).UnixMicro()
	s.event(t, name, "order.changed", "4711", sequence, 0, true)
	s.Poison = s.event(t, name, "order.changed", "4711", sequence+1, sequence, true)
	s.Followed = s.event(t, name, "order.changed", "4711", sequence+2, sequence+1, true)
	last := s.event(t, name, "order.closed", "4711", sequence+3, sequence+2, true)
	s.Handled = s.event(t, name, "order.seen", "", 0, 0, true)
	s.Loose = s.event(t, name, "order.seen", Hostile, 0, 0, true)
	s.Owed = s.event(t, name, "order.changed", "4712", sequence+4, 0, false)
	s.Exec(t, `INSERT INTO stream VALUES ($1, 'orders', '4711', $2, $3), ($1, 'orders', '4712', 0, $4)`, name, sequence+2, sequence+3, sequence+4)
	s.Exec(t, `INSERT INTO position (consumer, source, topic, subject, sequence, handled_at, took_ms) VALUES ('billing', $1, 'orders', '4711', $2, now() - interval '100 s', 7)`, name, sequence)
	s.Exec(t, `INSERT INTO inbox (event_id, consumer, source) VALUES ($1, 'billing', $2)`, s.Handled, name)
	s.park(t, s.Poison, "dead", 8, "insert payment 77: no such article 4711")
	s.park(t, s.Followed, "gap", 0, "")
	s.park(t, last, "gap", 0, "")
	s.park(t, s.Loose, "dead", 8, Hostile)

	s.Exec(t, `INSERT INTO saga (name, key, version, state, data, revision, started_at, changed_at)
		SELECT 'order', 'o' || n, 1, CASE WHEN n % 3 = 0 THEN 'awaiting_payment' ELSE 'open' END, jsonb_build_object('card', $1::text), 1, now() - interval '1 h', now() - interval '1 h'
		FROM generate_series(1, 70) n`, Secret)
	s.Exec(t, `INSERT INTO saga (name, key, version, state, data, revision, finished_at) VALUES ('order', '4711', 1, 'closed', '{}', 2, now())`)
	s.Exec(t, `INSERT INTO saga_history (name, key, revision, from_state, to_state, cause_type, cause_id) VALUES ('order', 'o3', 1, '', 'awaiting_payment', 'saga.begin', NULL),
		('order', '4711', 1, '', 'open', 'saga.begin', NULL), ('order', '4711', 2, 'open', 'closed', 'order.closed', $1)`, last)
	s.Exec(t, `INSERT INTO timeout (key, name, epoch, due_at, next_sweep_at, source, topic, type, subject, content_type, body)
		SELECT 'order/o' || n, 'deadline', gen_random_uuid(), now() + (n - 3) * interval '10 min', now(), $1, 'timeouts', 'order.deadline', 'o' || n, 'application/json', '{}'
		FROM generate_series(1, 70) n`, name)
	s.Exec(t, `INSERT INTO timeout_history (key, name, epoch, armed_at, due_at, topic, type, subject, outcome, by_operator, next_epoch)
		SELECT key, 'deadline', gen_random_uuid(), now() - interval '2 h', now() - interval '1 h', topic, type, subject, 'moved', true, epoch FROM timeout WHERE key = 'order/o3'`)
	return s
}

// Exec runs a statement in the schema.
func (s *Service) Exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	if _, err := s.Pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// Value returns the text of one value.
func (s *Service) Value(t testing.TB, sql string, args ...any) (text string) {
	t.Helper()
	if err := s.Pool.QueryRow(t.Context(), "SELECT ("+sql+")::text", args...).Scan(&text); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return text
}

func (s *Service) event(t testing.TB, source, eventType, subject string, sequence, previous int64, acked bool) uuid.UUID {
	t.Helper()
	id := uuid.Must(uuid.NewV7())
	s.Exec(t, `INSERT INTO outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, body)
		VALUES ($1, $2, 'orders', $3, $4, $5, $6, now() - interval '2 min', 'application/json', $7)`,
		id, source, eventType, strings.ReplaceAll(subject, "\x00", ""), sequence, previous, fmt.Appendf(nil, `{"card":%q,"note":"<b>bold</b>"}`, Secret))
	if acked {
		s.Exec(t, `INSERT INTO outbox_ack (id, path) VALUES ($1, 2)`, id)
	}
	return id
}

// park makes an event of the outbox a parked one of the consumer billing.
func (s *Service) park(t testing.TB, id uuid.UUID, reason string, attempts int, lastError string) {
	t.Helper()
	s.Exec(t, `INSERT INTO parked (consumer, event_id, reason, attempts, next_at, last_error, parked_at, source, topic, type, subject, sequence, previous, recorded_at,
			database, timeout_key, timeout_name, content_type, headers, body)
		SELECT 'billing', id, $2, $3, 'infinity', $4, now() - interval '90 s', source, topic, type, subject, sequence, previous, recorded_at, '', '', '', content_type, headers, body
		FROM outbox WHERE id = $1`, id, reason, attempts, lastError)
}

// Letters adds n dead letters of one kind without order.
func (s *Service) Letters(t testing.TB, n int) {
	t.Helper()
	s.Exec(t, `INSERT INTO parked (consumer, event_id, reason, attempts, next_at, last_error, parked_at, source, topic, type, subject, sequence, previous, recorded_at,
			database, timeout_key, timeout_name, content_type, headers, body)
		SELECT 'mailing', gen_random_uuid(), 'dead', 8, 'infinity', 'mailbox ' || n || ' is full', now() - interval '60 s', 'shop', 'orders', 'order.closed', 's' || n, 0, 0, now(),
			'', '', '', 'application/json', NULL, '{}'
		FROM generate_series(1, $1::bigint) n`, n)
}

// Gap adds an event of stream 4713 that waits for a predecessor which nobody has, with one behind it, and returns its id.
func (s *Service) Gap(t testing.TB) uuid.UUID {
	t.Helper()
	sequence := time.Now().Add(-time.Minute).UnixMicro()
	source := s.Value(t, "SELECT source FROM installation")
	head := s.event(t, source, "order.changed", "4713", sequence, sequence-1, true)
	behind := s.event(t, source, "order.changed", "4713", sequence+1, sequence, true)
	s.park(t, head, "gap", 0, "")
	s.park(t, behind, "gap", 0, "")
	return head
}

// Reject adds n ordered events of a topic of which the broker rejects all, and one of the topic orders that is too large, and returns the
// id of that one.
func (s *Service) Reject(t testing.TB, topic string, n int) uuid.UUID {
	t.Helper()
	source := s.Value(t, "SELECT source FROM installation")
	for i := range n {
		id := s.event(t, source, "order.changed", fmt.Sprintf("r%d", i), time.Now().UnixMicro(), 0, false)
		s.Exec(t, "UPDATE outbox SET topic = $2 WHERE id = $1", id, topic)
		s.Exec(t, "INSERT INTO outbox_rejected (id, topic, reason, next_at) VALUES ($1, $2, 'no such topic', 'infinity')", id, topic)
	}
	s.Exec(t, "INSERT INTO outbox_rejected_topic (topic, reason, next_at) VALUES ($1, 'no such topic', now() + interval '5 min')", topic)
	large := s.event(t, source, "order.closed", "large", time.Now().UnixMicro(), 0, false)
	s.Exec(t, "INSERT INTO outbox_rejected (id, topic, reason, attempts, next_at) VALUES ($1, 'orders', $2, 3, now() + interval '2 min')", large, "the body is too large: "+Hostile)
	return large
}

// Wait adds an event that waits for a saga order, and returns its number.
func (s *Service) Wait(t testing.TB, key, status, lastError string) string {
	t.Helper()
	var id int64
	err := s.Pool.QueryRow(t.Context(), `
		INSERT INTO saga_waiting (saga, key, status, begun, state, attempts, next_at, expires_at, last_error, arrived_at, event_id, source, topic, type, subject, sequence, previous,
			recorded_at, database, content_type, body)
		VALUES ('order', $1, $2, true, 'open', 3, 'infinity', now() + interval '10 min', $3, now() - interval '5 min', $4, 'shop', 'payments', 'payment.received', $1, 0, 0, now(), '',
			'application/json', '{}')
		RETURNING id`, key, status, lastError, uuid.New()).Scan(&id)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.FormatInt(id, 10)
}

// order is the data of a saga.
type order struct{}

type changed struct{}

func (changed) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "orders", Type: "order.changed"}
}

type closed struct{}

func (closed) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "orders", Type: "order.closed"}
}

type paid struct{}

func (paid) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "payments", Type: "payment.received"}
}

// Graphs describes version 2 of the saga order. New makes sagas in some of its states.
func Graphs() []saga.Graph {
	soon := func(*order) time.Time { return time.Now().Add(time.Hour) }
	d := saga.Define[order]("order", 2).Initial("open").NoDeadline("open", "paid").Deadline("awaiting_payment", "cancelled", soon, nil).Final("closed", "cancelled")
	saga.On[changed](d, "open", "awaiting_payment", nil)
	saga.On[changed](d, "awaiting_payment", "open", nil)
	saga.On[paid](d, "awaiting_payment", "paid", nil)
	saga.On[changed](d, "paid", "paid", nil)
	saga.On[closed](d, "paid", "closed", nil)
	saga.On[closed](d, "open", "closed", nil)
	return []saga.Graph{d.Graph()}
}

// Start starts a console of services. Its Authorize is required; Services are set.
func Start(t testing.TB, c console.Config, services ...*Service) *console.Console {
	t.Helper()
	names := []string{"order", "payment"}
	for i, s := range services {
		c.Services = append(c.Services, console.Service{Name: names[i], Operator: s.Operator, Sagas: s.Sagas})
	}
	x, err := console.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := x.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return x
}
