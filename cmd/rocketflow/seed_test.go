package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/internal/partition"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/timeout"
)

// seeded is a schema that tests fill with rows.
type seeded struct {
	pool   *pgxpool.Pool
	schema string
	names  []string // pairs for a strings.Replacer: text that differs from run to run, and its replacement
}

func seed(t *testing.T) *seeded {
	t.Helper()
	pool, schema := testdb.Shared(t)
	return &seeded{pool: pool, schema: schema, names: []string{schema, "SCHEMA"}}
}

func (s *seeded) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := s.pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// rf runs a command line on the schema. Text that differs from run to run is replaced, and columns are one space apart.
func (s *seeded) rf(line string) (code int, stdout, stderr string) {
	code, stdout, stderr = runLine(line + " --schema " + s.schema)
	return code, s.normal(stdout), s.normal(stderr)
}

var normalTimes = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`), "TIME"},
	{regexp.MustCompile(`\b(\d+d\d+h|(\d+h)?(\d+m)?\d+(\.\d+)?(s|ms)|\d+h\d+m)( |\b)`), "SPAN$6"},
	{regexp.MustCompile(`(\S) +`), "$1 "},
	{regexp.MustCompile(` +\n`), "\n"},
}

func (s *seeded) normal(out string) string {
	out = strings.NewReplacer(s.names...).Replace(out)
	for _, n := range normalTimes {
		out = n.pattern.ReplaceAllString(out, n.with)
	}
	return out
}

// events are the events that seedEvents creates.
type events struct {
	first, poison, follower rocketflow.Event // of one stream
	loose, bad              rocketflow.Event // without order
}

// seedEvents inserts events into the outbox and runs a router on them: first is handled, poison is a dead letter, follower is
// parked behind it and owed; loose is handled, bad is a dead letter.
func (s *seeded) seedEvents(t *testing.T) events {
	t.Helper()
	var e events
	sequence := time.Now().Add(-time.Minute).UnixMicro()
	for i, p := range []*rocketflow.Event{&e.first, &e.poison, &e.follower} {
		*p = s.event("order.changed", "E"+strconv.Itoa(i+1))
		p.Subject, p.Sequence = "4711", sequence+int64(i)
		if i > 0 {
			p.Previous = p.Sequence - 1
		}
		s.names = append(s.names, strconv.FormatInt(p.Sequence, 10), fmt.Sprintf("S%d", i+1))
		s.exec(t, `INSERT INTO outbox (id, source, topic, type, subject, sequence, previous, recorded_at, content_type, body)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
			p.ID, p.Source, p.Topic, p.Type, p.Subject, p.Sequence, p.Previous, p.Time, p.ContentType, p.Body)
	}
	s.exec(t, "INSERT INTO stream VALUES ('shop', 'orders', '4711', $1, $2)", e.poison.Sequence, e.follower.Sequence)
	s.exec(t, "INSERT INTO outbox_ack (id) VALUES ($1), ($2)", e.first.ID, e.poison.ID)
	e.loose, e.bad = s.event("order.seen", "L1"), s.event("order.seen", "L2")

	// The router would create partitions while it handles the first events, and an insert at that moment can fail.
	if _, err := partition.Ensure(t.Context(), s.pool, partition.Table{Schema: s.schema, Name: "inbox"}, time.Now(), 7); err != nil {
		t.Fatal(err)
	}
	hand := &handBroker{}
	router, err := handlers.New(handlers.Config{Pool: s.pool, Source: "shop", Schema: s.schema, Transactor: plain{s.pool}, Broker: hand, Requester: handlers.NoRequester})
	if err != nil {
		t.Fatal(err)
	}
	handle := func(_ context.Context, _ rocketflow.Tx, got rocketflow.Event) error {
		if got.ID == e.poison.ID || got.ID == e.bad.ID {
			return handlers.Dead(errors.New("no such article:\n\t\x1b[31m8"))
		}
		return nil
	}
	router.Handle("billing", "orders", "order.changed", handle)
	router.Handle("billing", "orders", "order.seen", handle)
	if err := router.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, p := range []rocketflow.Event{e.first, e.poison, e.follower, e.loose, e.bad} {
		if err := hand.handler(t.Context(), broker.Delivery{Message: wire.MessageOf(p), Attempt: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := router.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	// A consumer that has received nothing yet, and one that reads another topic.
	s.exec(t, "INSERT INTO consumer (name) VALUES ('mailing'), ('search')")
	s.exec(t, "INSERT INTO consumer_topic (consumer, topic) VALUES ('mailing', 'orders'), ('search', 'articles')")
	return e
}

func (s *seeded) event(eventType, name string) rocketflow.Event {
	id := uuid.Must(uuid.NewV7())
	s.names = append(s.names, id.String(), name)
	return rocketflow.Event{
		ID: id, Source: "shop", Topic: "orders", Type: eventType, Time: time.Now().Add(-time.Minute),
		ContentType: rocketflow.ContentTypeJSON, Body: []byte(`{"cents":1}`),
	}
}

// handBroker gives the handler of its only subscription to the test.
type handBroker struct{ handler broker.Handler }

func (b *handBroker) Subscribe(_ context.Context, _ broker.Subscription, h broker.Handler) (broker.Consumer, error) {
	b.handler = h
	return noConsumer{}, nil
}

type noConsumer struct{}

func (noConsumer) Stop(context.Context) error { return nil }
func (noConsumer) Err() error                 { return nil }

// plain is a transactor whose transactions publish nothing.
type plain struct{ pool *pgxpool.Pool }

type plainTx struct{ pgx.Tx }

func (plainTx) Publish(context.Context, ...rocketflow.Payload) error { return nil }
func (plainTx) AfterCommit(func())                                   {}

func (p plain) Within(ctx context.Context, fn func(context.Context, rocketflow.Tx) error) error {
	return pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error { return fn(ctx, plainTx{tx}) })
}

// noTimers is a broker without timers: timeouts stay in Postgres.
type noTimers struct{}

func (noTimers) Horizon() time.Duration { return 0 }
func (noTimers) Schedule(context.Context, broker.Message, time.Time) (broker.Timer, error) {
	return broker.Timer{}, broker.ErrBeyondHorizon
}
func (noTimers) SendGroup(context.Context, []broker.Message) []error { return nil }

type cart struct {
	Cents int       `json:"cents"`
	PayBy time.Time `json:"-"`
}

type paid struct{ Cents int }

func (paid) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "payments", Type: "payment.received"}
}

// seedSaga begins a saga "order" with a key and, if pay is set, brings it to its end.
func (s *seeded) seedSaga(t *testing.T, key string, pay bool) {
	t.Helper()
	timer, err := timeout.New(timeout.Config{Pool: s.pool, Schema: s.schema, Broker: noTimers{}, Source: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	engine, err := saga.New(saga.Config{
		Pool: s.pool, Schema: s.schema, Consumer: "sagas", Timer: timer, TimeoutTopic: "timeouts", Router: noRouter{}, Transactor: noTransactor{},
	})
	if err != nil {
		t.Fatal(err)
	}
	d := saga.Define[cart]("order", 1).Initial("open").
		Deadline("open", "closed", func(c *cart) time.Time { return c.PayBy }, nil).
		Final("paid", "closed")
	saga.On(d, "open", "paid", func(_ context.Context, _ rocketflow.Tx, c *cart, p paid) error {
		c.Cents -= p.Cents
		return nil
	})
	orders, err := saga.Register(engine, d)
	if err != nil {
		t.Fatal(err)
	}
	err = plain{s.pool}.Within(t.Context(), func(ctx context.Context, tx rocketflow.Tx) error {
		return orders.Begin(ctx, tx, key, cart{Cents: 100, PayBy: time.Now().Add(25 * time.Hour)})
	})
	if err == nil && pay {
		err = plain{s.pool}.Within(t.Context(), func(ctx context.Context, tx rocketflow.Tx) error {
			return orders.Apply(ctx, tx, key, paid{60})
		})
	}
	if err != nil {
		t.Fatal(err)
	}
}

type noRouter struct{}

func (noRouter) Handle(_, _, _ string, _ rocketflow.HandlerFunc) {}

// noTransactor is for engines that are not started.
type noTransactor struct{}

func (noTransactor) Within(context.Context, func(context.Context, rocketflow.Tx) error) error {
	return errors.ErrUnsupported
}

// wantLines fails if text differs line by line, apart from space around it.
func wantLines(t *testing.T, what, got, want string) {
	t.Helper()
	g, w := strings.Split(strings.TrimSpace(got), "\n"), strings.Split(strings.TrimSpace(want), "\n")
	if !slices.Equal(g, w) {
		t.Errorf("%s:\n%s\nwant:\n%s", what, strings.Join(g, "\n"), strings.Join(w, "\n"))
	}
}
