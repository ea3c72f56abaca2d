package operate_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

// fakeBroker keeps the events that it is sent, and refuses those of a topic or a subject on demand.
type fakeBroker struct {
	mu             sync.Mutex
	delivered      []rocketflow.Event
	missingTopic   string
	refusedSubject string
}

// setMissing makes a topic the one that does not exist; empty: all topics exist.
func (b *fakeBroker) setMissing(topic string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.missingTopic = topic
}

// setRefused makes the events of a subject too large; empty: none are.
func (b *fakeBroker) setRefused(subject string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refusedSubject = subject
}

func (b *fakeBroker) events() []rocketflow.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.delivered)
}

func (b *fakeBroker) ofTopic(topic string) []rocketflow.Event {
	return slices.DeleteFunc(b.events(), func(e rocketflow.Event) bool { return e.Topic != topic })
}

func (b *fakeBroker) Send(_ context.Context, m broker.Message) (broker.Receipt, error) {
	e, err := wire.EventOf(broker.Delivery{Message: m})
	if err != nil {
		return broker.Receipt{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case e.Topic == b.missingTopic:
		return broker.Receipt{}, broker.ErrTopicNotFound
	case b.refusedSubject != "" && e.Subject == b.refusedSubject:
		return broker.Receipt{}, broker.ErrTooLarge
	}
	b.delivered = append(b.delivered, e)
	return broker.Receipt{MessageID: m.ID}, nil
}

func (b *fakeBroker) SendGroup(ctx context.Context, ms []broker.Message) []error {
	errs := make([]error, len(ms))
	failed := false
	for i, m := range ms {
		_, errs[i] = b.Send(ctx, m)
		failed = failed || errs[i] != nil
	}
	if !failed {
		return nil
	}
	return errs
}

func (b *fakeBroker) VerifyTopics(context.Context, ...string) error { return nil }
func (b *fakeBroker) Shard(string, string) int                      { return 0 }

func (b *fakeBroker) Subscribe(context.Context, broker.Subscription, broker.Handler) (broker.Consumer, error) {
	return nil, broker.ErrTopicNotFound
}

func (b *fakeBroker) OpenTransactionProducer(context.Context, string, broker.Checker) (broker.TransactionProducer, error) {
	return noHalves{}, nil
}

// noHalves is the transaction producer of an outbox that takes the relay path, which needs none.
type noHalves struct{}

func (noHalves) Prepare(context.Context, broker.Message) (broker.Half, error) {
	return broker.Half{}, broker.ErrUnavailable
}
func (noHalves) Commit(context.Context, broker.Half) error   { return broker.ErrUnavailable }
func (noHalves) Rollback(context.Context, broker.Half) error { return broker.ErrUnavailable }
func (noHalves) Close(context.Context) error                 { return nil }

// service is a running outbox, its broker and the operator of its schema.
type service struct {
	pool     *pgxpool.Pool
	broker   *fakeBroker
	outbox   *outbox.Outbox
	operator *operate.Operator
}

func startService(t *testing.T, edit func(*outbox.Config)) *service {
	t.Helper()
	pool, schema := testdb.Partitioned(t)
	s := &service{pool: pool, broker: &fakeBroker{}}
	s.operator = testoperator.Of(t, operate.Config{Pool: pool, Schema: schema, Broker: s.broker})
	config := outbox.Config{
		Pool: pool, Broker: s.broker, Source: "bank", Schema: schema, Path: outbox.Relay,
		SweepInterval: 20 * time.Millisecond, SweepGrace: 2 * time.Second,
	}
	if edit != nil {
		edit(&config)
	}
	var err error
	if s.outbox, err = outbox.New(config); err != nil {
		t.Fatal(err)
	}
	if err := s.outbox.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.outbox.Stop(ctx); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return s
}

func (s *service) publish(ctx context.Context, e rocketflow.Event) error {
	return s.outbox.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error { return tx.Publish(ctx, e) })
}

func (s *service) count(t *testing.T, table string) (n int) {
	t.Helper()
	if err := s.pool.QueryRow(context.Background(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// checkChain fails unless the events of each stream are linked, in the order given.
func checkChain(t *testing.T, events []rocketflow.Event) {
	t.Helper()
	last := map[rocketflow.Stream]int64{}
	for _, e := range events {
		if e.Previous != last[e.Stream()] || e.Sequence <= e.Previous {
			t.Errorf("event %s of %s: sequence %d after %d, want after %d", e.ID, e.Subject, e.Sequence, e.Previous, last[e.Stream()])
		}
		last[e.Stream()] = e.Sequence
	}
}
