package saga_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/timeout"
)

var (
	_ saga.Timer = (*timeout.Scheduler)(nil)
)

// within runs a transaction at the database's isolation level.
func within(ctx context.Context, pool *pgxpool.Pool, fn func(tx *testdb.Tx) error) error {
	return testdb.Within(ctx, pool, pgx.TxOptions{}, fn)
}

// router holds handlers by consumer, topic and type. The test calls them.
type router map[string]rocketflow.HandlerFunc

func (r router) Handle(consumer, topic, eventType string, fn rocketflow.HandlerFunc) {
	name := consumer + " " + topic + " " + eventType
	if r[name] != nil {
		panic("registered twice: " + name)
	}
	r[name] = fn
}

// noBroker has no timers: deadlines stay in Postgres until the test fires them.
type noBroker struct{}

func (noBroker) Horizon() time.Duration { return 0 }
func (noBroker) Schedule(context.Context, broker.Message, time.Time) (broker.Timer, error) {
	return broker.Timer{}, broker.ErrBeyondHorizon
}
func (noBroker) SendGroup(context.Context, []broker.Message) []error { return nil }

type bundle struct {
	*saga.Engine
	pool   *pgxpool.Pool
	schema string
	router router
	cfg    saga.Config

	mu      sync.Mutex
	moved   []saga.TransitionInfo
	ignored []saga.IgnoredInfo
	waits   []saga.WaitInfo
}

func setup(t *testing.T) *bundle {
	t.Helper()
	pool, schema := testdb.Partitioned(t)
	return setupIn(t, pool, schema)
}

func setupIn(t *testing.T, pool *pgxpool.Pool, schema string) *bundle {
	t.Helper()
	b := &bundle{pool: pool, schema: schema, router: router{}}
	timer, err := timeout.New(timeout.Config{Pool: pool, Broker: noBroker{}, Schema: schema, Source: "test"})
	if err != nil {
		t.Fatal(err)
	}
	b.cfg = saga.Config{
		Transactor: transactor{b},
		Pool:       pool, Schema: schema, Router: b.router, Consumer: "sagas", Timer: timer, TimeoutTopic: "timeouts",
		Listener: &saga.Listener{
			Moved: func(i saga.TransitionInfo) {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.moved = append(b.moved, i)
			},
			Ignored: func(i saga.IgnoredInfo) {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.ignored = append(b.ignored, i)
			},
			Waiting: func(i saga.WaitInfo) {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.waits = append(b.waits, i)
			},
		},
	}
	b.Engine = b.engine(t, b.cfg)
	return b
}

func (b *bundle) engine(t *testing.T, cfg saga.Config) *saga.Engine {
	t.Helper()
	e, err := saga.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// newEvent makes an event as some other producer does: its subject may be anything.
func newEvent(p rocketflow.Payload) (rocketflow.Event, error) {
	meta := p.EventMeta()
	body, err := json.Marshal(p)
	return rocketflow.Event{
		ID: uuid.New(), Topic: meta.Topic, Type: meta.Type, Subject: meta.Subject, ContentType: rocketflow.ContentTypeJSON, Body: body,
		Source: "elsewhere", Time: time.Now(),
	}, err
}

// send handles an event as a router does, and returns what the handler published.
func (b *bundle) send(p rocketflow.Payload) ([]rocketflow.Payload, error) {
	e, err := wire.NewEvent(p)
	if err != nil {
		return nil, err
	}
	return b.handle(e)
}

func (b *bundle) handle(e rocketflow.Event) (published []rocketflow.Payload, err error) {
	var consumers []string
	for name := range b.router {
		if strings.HasSuffix(name, " "+e.Topic+" "+e.Type) {
			consumers = append(consumers, name)
		}
	}
	if len(consumers) == 0 {
		return nil, fmt.Errorf("no handler for %s %s", e.Topic, e.Type)
	}
	slices.Sort(consumers)
	var errs []error
	for _, name := range consumers { // each consumer handles it in a transaction of its own
		these, err := b.handleAs(name, e)
		published, errs = append(published, these...), append(errs, err)
	}
	return published, errors.Join(errs...)
}

func (b *bundle) handleAs(name string, e rocketflow.Event) (published []rocketflow.Payload, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err = testdb.Within(ctx, b.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx *testdb.Tx) error { // as the router has it
		err := b.router[name](ctx, tx, e)
		published = tx.Published
		return err
	})
	if errors.Is(err, rocketflow.ErrStale) {
		return nil, nil
	}
	return published, err
}

// deadline returns the event of an armed timeout.
func (b *bundle) deadline(ctx context.Context, key, name string) (e rocketflow.Event, err error) {
	e.TimeoutKey, e.TimeoutName, e.ContentType = key, name, rocketflow.ContentTypeJSON
	err = b.pool.QueryRow(ctx, `SELECT epoch, topic, type, subject, body, (SELECT id::text FROM installation)
		FROM timeout WHERE key = $1 AND name = $2`, key, name).Scan(&e.ID, &e.Topic, &e.Type, &e.Subject, &e.Body, &e.Database)
	return e, err
}

// armed returns the names of the timeouts of a key.
func (b *bundle) armed(t *testing.T, key string) []string {
	t.Helper()
	rows, err := b.pool.Query(t.Context(), "SELECT name FROM timeout WHERE key = $1 ORDER BY name", key)
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// The data and events of the tests' sagas.

type order struct {
	Lines   []line                     `json:"lines"`
	Paid    int64                      `json:"paid"`
	PayBy   time.Time                  `json:"pay_by"`
	Notes   map[string]json.RawMessage `json:"notes,omitempty"`
	Refunds int                        `json:"refunds"`
}

type line struct {
	SKU   string `json:"sku"`
	Count int    `json:"count"`
}

type paid struct {
	OrderID string `json:"order_id"`
	Amount  int64  `json:"amount"`
}

func (p paid) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "payments", Type: "payment.received", Subject: p.OrderID}
}

type shipped struct{ Parcel, OrderID string }

func (p shipped) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "parcels", Type: "parcel.shipped", Subject: p.Parcel}
}

type refused struct{ OrderID string }

func (p refused) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "payments", Type: "payment.refused", Subject: p.OrderID}
}

type released struct{ OrderID string }

func (p released) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "stock", Type: "stock.released", Subject: p.OrderID}
}

var errBoom = errors.New("boom")

// orderSaga: placed, paid in parts, shipped; closed if it isn't paid in time.
func orderSaga() *saga.Definition[order] {
	d := saga.Define[order]("order", 1).
		Initial("awaiting_payment").
		Deadline("awaiting_payment", "closed",
			func(o *order) time.Time { return o.PayBy },
			func(ctx context.Context, tx rocketflow.Tx, o *order) error {
				o.Refunds++
				return tx.Publish(ctx, released{"from the deadline"})
			}).
		NoDeadline("paid").
		Final("shipped", "closed")
	saga.On(d, "awaiting_payment", "paid", func(_ context.Context, _ rocketflow.Tx, o *order, p paid) error {
		if p.Amount < 0 {
			return errBoom
		}
		o.Paid += p.Amount
		return nil
	})
	saga.On(d, "paid", "paid", func(_ context.Context, _ rocketflow.Tx, o *order, p paid) error {
		o.Paid += p.Amount
		return nil
	})
	saga.On[shipped](d, "paid", "shipped", nil)
	saga.KeyBy(d, func(p shipped) string { return p.OrderID })
	return d
}

func registerOrder(t *testing.T, b *bundle) *saga.Saga[order] {
	t.Helper()
	s, err := saga.Register(b.Engine, orderSaga())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (b *bundle) begin(t *testing.T, s *saga.Saga[order], key string, o order) {
	t.Helper()
	if o.PayBy.IsZero() {
		o.PayBy = time.Now().Add(time.Hour)
	}
	if err := within(t.Context(), b.pool, func(tx *testdb.Tx) error { return s.Begin(t.Context(), tx, key, o) }); err != nil {
		t.Fatal(err)
	}
}
