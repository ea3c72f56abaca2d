package outbox_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/test/testdb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logicBroker stands in for a broker in tests of the outbox' own logic: it keeps half messages and what was sent, and
// fails on demand. The promises are tested on a real broker.
type logicBroker struct {
	mu        sync.Mutex
	halves    map[string]broker.Message // by message id
	delivered []rocketflow.Event
	check     broker.Checker
	fail      map[string]error // by method
	hang      map[string]bool
	arrived   chan struct{}
	missing   string        // a topic that Send rejects
	refuse    string        // a sharding key that SendGroup rejects
	groups    []int         // their sizes
	hold      chan struct{} // what SendGroup waits for
	preparing func(broker.Message)
}

func (b *logicBroker) reject(topic string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.missing = topic
}

func newLogicBroker() *logicBroker {
	return &logicBroker{halves: map[string]broker.Message{}, fail: map[string]error{}, hang: map[string]bool{}, arrived: make(chan struct{}, 1)}
}

func (b *logicBroker) set(method string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail[method] = err
}

func (b *logicBroker) enter(ctx context.Context, method string) error {
	b.mu.Lock()
	hang, err := b.hang[method], b.fail[method]
	b.mu.Unlock()
	if hang {
		<-ctx.Done()
		return fmt.Errorf("%w: %w", broker.ErrUnavailable, ctx.Err())
	}
	return err
}

func (b *logicBroker) deliver(m broker.Message) {
	e, err := wire.EventOf(broker.Delivery{Message: m})
	if err != nil {
		panic(err)
	}
	b.delivered = append(b.delivered, e)
	select {
	case b.arrived <- struct{}{}:
	default:
	}
}

func (b *logicBroker) VerifyTopics(context.Context, ...string) error { return nil }

func (b *logicBroker) Send(ctx context.Context, m broker.Message) (broker.Receipt, error) {
	if err := b.enter(ctx, "send"); err != nil {
		return broker.Receipt{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if m.Topic == b.missing {
		return broker.Receipt{}, broker.ErrTopicNotFound
	}
	b.deliver(m)
	return broker.Receipt{MessageID: m.ID}, nil
}

// SendGroup is one request: it fails entirely, except for events that are rejected.
func (b *logicBroker) SendGroup(ctx context.Context, ms []broker.Message) []error {
	err := b.enter(ctx, "send")
	b.mu.Lock()
	hold := b.hold
	b.mu.Unlock()
	if hold != nil {
		<-hold
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.groups = append(b.groups, len(ms))
	errs := make([]error, len(ms))
	for i, m := range ms {
		switch {
		case err != nil:
			errs[i] = err
		case m.Topic == b.missing:
			errs[i] = broker.ErrTopicNotFound
		case b.refuse != "" && m.ShardingKey == b.refuse:
			errs[i] = broker.ErrTooLarge
		default:
			b.deliver(m)
			continue
		}
	}
	for _, err := range errs {
		if err != nil {
			return errs
		}
	}
	return nil
}

func (b *logicBroker) Shard(_, key string) int { return len(key) % 4 }

func (b *logicBroker) Subscribe(context.Context, broker.Subscription, broker.Handler) (broker.Consumer, error) {
	return nil, broker.ErrTopicNotFound
}

func (b *logicBroker) OpenTransactionProducer(_ context.Context, _ string, check broker.Checker) (broker.TransactionProducer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.check = check
	return b, nil
}

func (b *logicBroker) Prepare(ctx context.Context, m broker.Message) (broker.Half, error) {
	if err := b.enter(ctx, "prepare"); err != nil {
		return broker.Half{}, err
	}
	b.mu.Lock()
	preparing := b.preparing
	b.mu.Unlock()
	if preparing != nil {
		preparing(m)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.halves[m.ID] = m
	return broker.Half{MessageID: m.ID, Topic: m.Topic}, nil
}

func (b *logicBroker) Commit(ctx context.Context, h broker.Half) error {
	if err := b.enter(ctx, "commit"); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deliver(b.halves[h.MessageID])
	delete(b.halves, h.MessageID)
	return nil
}

func (b *logicBroker) Rollback(ctx context.Context, h broker.Half) error {
	if err := b.enter(ctx, "rollback"); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.halves, h.MessageID)
	return nil
}

func (b *logicBroker) Close(context.Context) error { return nil }

// checkAll checks back for each open half message and ends it by the decision.
func (b *logicBroker) checkAll(ctx context.Context) []broker.Decision {
	b.mu.Lock()
	halves := slices.Collect(maps.Values(b.halves))
	check := b.check
	b.mu.Unlock()
	var decisions []broker.Decision
	for _, m := range halves {
		d, done := check(ctx, broker.Check{Half: broker.Half{MessageID: m.ID}, Message: broker.Delivery{Message: m, Attempt: 1}})
		decisions = append(decisions, d)
		var err error
		switch d {
		case broker.Commit:
			err = b.Commit(ctx, broker.Half{MessageID: m.ID})
		case broker.Rollback:
			err = b.Rollback(ctx, broker.Half{MessageID: m.ID})
		}
		if done != nil {
			done(err)
		}
	}
	return decisions
}

func (b *logicBroker) events() []rocketflow.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.delivered)
}

func (b *logicBroker) open() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.halves)
}

type bundle struct {
	pool   *pgxpool.Pool
	schema string
	broker *logicBroker
	outbox *outbox.Outbox
}

// sweepGrace is short enough for tests to see what the sweep does, and long enough for a busy machine to send and ack.
const sweepGrace = 2 * time.Second

// setup returns a started outbox on a schema of its own.
func setup(t testing.TB, edit func(*outbox.Config)) *bundle {
	t.Helper()
	pool, schema := testdb.Partitioned(t)
	return setupIn(t, pool, schema, edit)
}

func setupIn(t testing.TB, pool *pgxpool.Pool, schema string, edit func(*outbox.Config)) *bundle {
	t.Helper()
	b := &bundle{pool: pool, schema: schema, broker: newLogicBroker()}
	if _, err := pool.Exec(context.Background(), "CREATE TABLE account (id text PRIMARY KEY, cents bigint NOT NULL)"); err != nil {
		t.Fatal(err)
	}
	b.outbox = b.start(t, edit)
	return b
}

// start starts one more outbox on the same database and broker.
func (b *bundle) start(t testing.TB, edit func(*outbox.Config)) *outbox.Outbox {
	t.Helper()
	config := outbox.Config{
		Pool: b.pool, Broker: b.broker, Source: "bank", Schema: b.schema,
		HalfTimeout: 100 * time.Millisecond, SweepInterval: 20 * time.Millisecond, SweepGrace: sweepGrace,
	}
	if edit != nil {
		edit(&config)
	}
	o, err := outbox.New(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := o.Stop(ctx); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return o
}

// credited is the event of these tests.
type credited struct {
	Account string `json:"account"`
	Cents   int64  `json:"cents"`
}

func (c credited) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "accounts", Type: "account.credited", Subject: c.Account}
}

// credit changes the account and publishes it.
func (b *bundle) credit(ctx context.Context, account string, cents int64) error {
	return testdb.Retry(func() error { // `make test-isolation`
		return b.outbox.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO account VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET cents = account.cents + $2", account, cents)
			if err != nil {
				return err
			}
			return tx.Publish(ctx, credited{account, cents})
		})
	})
}

func (b *bundle) count(t testing.TB, table string) (n int) {
	t.Helper()
	if err := b.pool.QueryRow(context.Background(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// chain fails unless the events of each stream are linked, in the order given.
func chain(t testing.TB, events []rocketflow.Event) {
	t.Helper()
	last := map[rocketflow.Stream]int64{}
	for _, e := range events {
		if e.Previous != last[e.Stream()] || e.Sequence <= e.Previous {
			t.Errorf("event %s of %s: sequence %d after %d, want after %d", e.ID, e.Subject, e.Sequence, e.Previous, last[e.Stream()])
		}
		last[e.Stream()] = e.Sequence
	}
}
