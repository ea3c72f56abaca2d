package handlers

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

const topic = "orders"

// bundle is what a test needs: a schema, a broker, and a table in which handlers leave their effects.
type bundle struct {
	t        testing.TB
	pool     *pgxpool.Pool
	schema   string
	broker   *memory
	operator *operate.Operator
}

func setup(t testing.TB) *bundle {
	t.Helper()
	pool, schema := testdb.Partitioned(t)
	return setupIn(t, pool, schema)
}

// setupProbed also returns a router with the bundle's configuration, and a probe that listens to it.
func setupProbed(t testing.TB) (*bundle, *probe, *Router) {
	t.Helper()
	b, p := setup(t), newProbe()
	cfg := b.config()
	cfg.Listener = p.listener()
	return b, p, b.router(cfg)
}

func setupIn(t testing.TB, pool *pgxpool.Pool, schema string) *bundle {
	t.Helper()
	if _, err := pool.Exec(context.Background(), "CREATE TABLE effect (n bigserial, consumer text, event uuid, type text, subject text, sequence bigint, attempt int)"); err != nil {
		t.Fatal(err)
	}
	return &bundle{t: t, pool: pool, schema: schema, broker: newMemory(), operator: testoperator.New(t, pool, schema)}
}

func (b *bundle) config() Config {
	return Config{
		Pool: b.pool, Source: "test", Transactor: &plainTransactor{b.pool, b.broker}, Broker: b.broker, Schema: b.schema, Lanes: 4,
		Requester: NoRequester,
		Logger:    slog.New(slog.DiscardHandler),
		Retry:     RetryPolicy{Attempts: 3, Base: 20 * time.Millisecond, Max: 50 * time.Millisecond},
	}
}

func (b *bundle) router(cfg Config) *Router {
	b.t.Helper()
	r, err := New(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// start starts r and stops it when the test ends.
func (b *bundle) start(r *Router) {
	b.t.Helper()
	if err := r.Start(context.Background()); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { b.stop(r) })
}

// billing starts a router whose consumer billing handles order.changed.
func (b *bundle) billing(handle rocketflow.HandlerFunc) *Router {
	b.t.Helper()
	r := b.router(b.config())
	r.Handle("billing", topic, "order.changed", handle)
	b.start(r)
	return r
}

func (b *bundle) stop(r *Router) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.Stop(ctx); err != nil {
		b.t.Errorf("stop: %v", err)
	}
}

// effect is a handler that leaves a row.
func effect(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
	_, err := tx.Exec(ctx, "INSERT INTO effect (consumer, event, type, subject, sequence, attempt) VALUES ($1, $2, $3, $4, $5, $6)",
		Consumer(ctx), e.ID, e.Type, e.Subject, e.Sequence, Attempt(ctx))
	return err
}

type effectRow struct {
	Event    uuid.UUID
	Type     string
	Subject  string
	Sequence int64
	Attempt  int
}

// effects returns the rows of a subject (empty: all) in the order of their effect.
func (b *bundle) effects(subject string) []effectRow {
	b.t.Helper()
	rows, err := b.pool.Query(context.Background(), "SELECT event, type, subject, sequence, attempt FROM effect WHERE $1 = '' OR subject = $1 ORDER BY n", subject)
	if err != nil {
		b.t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[effectRow])
	if err != nil {
		b.t.Fatal(err)
	}
	return list
}

// wantOrder fails unless the events had their effect once each and in this order.
func (b *bundle) wantOrder(subject string, events ...rocketflow.Event) {
	b.t.Helper()
	var got, want []int64
	for _, row := range b.effects(subject) {
		got = append(got, row.Sequence)
	}
	for _, e := range events {
		want = append(want, e.Sequence)
	}
	if !slices.Equal(got, want) {
		b.t.Errorf("effects on %s:\n got %v\nwant %v", subject, got, want)
	}
}

func (b *bundle) count(query string, args ...any) int {
	b.t.Helper()
	var n int
	if err := b.pool.QueryRow(context.Background(), query, args...).Scan(&n); err != nil {
		b.t.Fatal(err)
	}
	return n
}

func (b *bundle) effectCount() int { return b.count("SELECT count(*) FROM effect") }
func (b *bundle) parkedCount(reason Reason) int {
	return b.count("SELECT count(*) FROM parked WHERE reason = $1", reason)
}

// chain makes the next n events of a stream that began about now.
type chain struct {
	mu      sync.Mutex
	subject string
	last    int64
}

func newChain(subject string) *chain { return &chain{subject: subject} }

func (c *chain) next(n int) []rocketflow.Event { return c.at(time.Now(), n) }

func (c *chain) at(when time.Time, n int) []rocketflow.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []rocketflow.Event
	for range n {
		e := loose("order.changed", c.subject)
		e.Time = when
		e.Previous, e.Sequence = c.last, max(c.last+1, when.UnixMicro())
		c.last = e.Sequence
		list = append(list, e)
	}
	return list
}

func loose(eventType, subject string) rocketflow.Event {
	body, _ := json.Marshal(map[string]string{"order": subject})
	return rocketflow.Event{
		ID: uuid.Must(uuid.NewV7()), Source: "test", Topic: topic, Type: eventType, Subject: subject, Time: time.Now(),
		ContentType: rocketflow.ContentTypeJSON, Body: body, Headers: map[string]string{"tenant": "acme"},
	}
}

// probe is a Listener that counts.
type probe struct {
	mu     sync.Mutex
	counts map[string]int
	dead   []FailureInfo
}

func newProbe() *probe { return &probe{counts: map[string]int{}} }

func (p *probe) inc(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[name]++
}

func (p *probe) get(name string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts[name]
}

func (p *probe) listener() *Listener {
	return &Listener{
		Received:  func(ReceivedInfo) { p.inc("received") },
		Ran:       func(BatchInfo) { p.inc("ran") },
		Committed: func(BatchInfo) { p.inc("committed") },
		Handled:   func(HandledInfo) { p.inc("handled") },
		Skipped:   func(EventInfo) { p.inc("skipped") },
		Duplicate: func(EventInfo) { p.inc("duplicate") },
		Discarded: func(FailureInfo) { p.inc("discarded") },
		Gap:       func(GapInfo) { p.inc("gap") },
		Parked:    func(i ParkedInfo) { p.inc("parked " + string(i.Reason)) },
		Retried:   func(RetriedInfo) { p.inc("retried") },
		Dead: func(i FailureInfo) {
			p.inc("dead")
			p.mu.Lock()
			defer p.mu.Unlock()
			p.dead = append(p.dead, i)
		},
		Panicked:     func(PanickedInfo) { p.inc("panicked") },
		Unresponsive: func(UnresponsiveInfo) { p.inc("unresponsive") },
		Stalled:      func(StalledInfo) { p.inc("stalled") },
	}
}

func subjectN(i int) string { return fmt.Sprintf("order-%d", i) }
