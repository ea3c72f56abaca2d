package acceptance

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/leaks"
	"github.com/rocketflow/rocketflow/test/testbroker"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/timeout"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, leaks.Known()...) }

// service is one service as an application wires it, with a topic and a database schema of its own.
type service struct {
	t      *testing.T
	pool   *pgxpool.Pool
	schema string
	topic  string // also the source, and the prefix of groups
	client *rocketmq.Client

	nameServers []string
}

// setup connects a service to the shared RocketMQ, or to the one that nameServers name.
func setup(t *testing.T, nameServers ...string) *service {
	t.Helper()
	if len(nameServers) == 0 {
		nameServers = testbroker.NameServers(t)
	}
	s := &service{t: t, topic: "acceptance-" + uuid.NewString()[:8], nameServers: nameServers}
	s.pool, s.schema = testdb.Partitioned(t)
	s.client = connect(t, nameServers)
	s.createTopic(s.topic, 4)
	s.exec(`CREATE TABLE effect (n bigserial PRIMARY KEY, kind text NOT NULL, key text NOT NULL, number int NOT NULL DEFAULT 0,
		at timestamptz NOT NULL DEFAULT clock_timestamp())`)
	return s
}

func connect(t *testing.T, nameServers []string) *rocketmq.Client {
	t.Helper()
	return testbroker.Open(t, rocketmq.Config{NameServers: nameServers, Service: "acceptance"})
}

func (s *service) createTopic(name string, queues int) {
	s.t.Helper()
	if err := s.client.CreateTopics(bounded(s.t, 90*time.Second), broker.Topic{Name: name, Queues: queues}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *service) outboxConfig() outbox.Config {
	return outbox.Config{Pool: s.pool, Broker: s.client, Source: s.topic, Schema: s.schema}
}

// outbox returns one that is started.
func (s *service) outbox(change ...func(*outbox.Config)) *outbox.Outbox {
	s.t.Helper()
	config := s.outboxConfig()
	for _, f := range change {
		f(&config)
	}
	box, err := outbox.New(config)
	if err != nil {
		s.t.Fatal(err)
	}
	s.start(box)
	return box
}

func (s *service) router(box *outbox.Outbox, change ...func(*handlers.Config)) *handlers.Router {
	s.t.Helper()
	config := handlers.Config{Pool: s.pool, Source: s.topic, Transactor: box, Broker: s.client, Schema: s.schema}
	for _, f := range change {
		f(&config)
	}
	router, err := handlers.New(config)
	if err != nil {
		s.t.Fatal(err)
	}
	return router
}

func (s *service) timer(change ...func(*timeout.Config)) *timeout.Scheduler {
	s.t.Helper()
	config := timeout.Config{Pool: s.pool, Broker: s.client, Schema: s.schema, Source: s.topic}
	for _, f := range change {
		f(&config)
	}
	timer, err := timeout.New(config)
	if err != nil {
		s.t.Fatal(err)
	}
	return timer
}

// part is what has a life: outbox, router, scheduler, engine.
type part interface {
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
}

// start starts parts, and stops them with the test, the last first.
func (s *service) start(parts ...part) {
	s.t.Helper()
	for _, p := range parts {
		if err := p.Start(bounded(s.t, 60*time.Second)); err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
			defer cancel()
			if err := p.Stop(ctx); err != nil {
				s.t.Error(err)
			}
		})
	}
}

func (s *service) publish(box *outbox.Outbox, events ...rocketflow.Payload) error {
	return box.Within(s.t.Context(), func(ctx context.Context, tx rocketflow.Tx) error { return tx.Publish(ctx, events...) })
}

func (s *service) exec(sql string, args ...any) {
	s.t.Helper()
	if _, err := s.pool.Exec(s.t.Context(), sql, args...); err != nil {
		s.t.Fatal(err)
	}
}

// count returns the first column of the first row.
func (s *service) count(sql string, args ...any) (n int) {
	s.t.Helper()
	if err := s.pool.QueryRow(s.t.Context(), sql, args...).Scan(&n); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// event is what the tests publish: number n of a key.
type event struct {
	Key    string `json:"key"`
	Number int    `json:"number"`
	topic  string
}

func (e event) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: e.topic, Type: "counted", Subject: e.Key}
}

// record is a handler that leaves one row of effect.
func record(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
	decoded, err := wire.DecodeBody[event](e)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "INSERT INTO effect (kind, key, number) VALUES ('handled', $1, $2)", decoded.Key, decoded.Number)
	return err
}

// deliveries counts what the broker delivers of a topic, message by message: no inbox hides a double.
type deliveries struct {
	mu sync.Mutex
	n  map[uuid.UUID]int
}

func (s *service) watch() *deliveries {
	s.t.Helper()
	d := &deliveries{n: map[uuid.UUID]int{}}
	consumer, err := s.client.Subscribe(bounded(s.t, 60*time.Second), broker.Subscription{Group: s.topic + "-watch", Topics: []string{s.topic}},
		func(_ context.Context, m broker.Delivery) error {
			e, err := wire.EventOf(m)
			if err != nil {
				return err
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			d.n[e.ID]++
			return nil
		})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = consumer.Stop(context.Background()) })
	return d
}

// counted returns how many events came, and how many deliveries those were.
func (d *deliveries) counted() (events, deliveries int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range d.n {
		deliveries += n
	}
	return len(d.n), deliveries
}

func bounded(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
