package clusters

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/devstack"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/leaks"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// clustersVariable is the environment variable that lets these tests run. Their clusters take minutes.
const clustersVariable = "ROCKETFLOW_CLUSTERS"

func TestMain(m *testing.M) {
	if os.Getenv(clustersVariable) == "" {
		os.Exit(0)
	}
	goleak.VerifyTestMain(m, leaks.Known()...)
}

// version is the version of RocketMQ: that of ROCKETMQ, as in `make test-clusters ROCKETMQ=5.3.3`.
func version() string { return cmp.Or(os.Getenv("ROCKETMQ"), "5.5.0") }

// transports are those that the tests run with: that of ROCKETFLOW_TRANSPORT, "own" or "client", or both.
func transports() []rocketmq.Transport {
	switch os.Getenv("ROCKETFLOW_TRANSPORT") {
	case "own":
		return []rocketmq.Transport{rocketmq.Own}
	case "client":
		return []rocketmq.Transport{rocketmq.ClientGo}
	}
	return []rocketmq.Transport{rocketmq.Own, rocketmq.ClientGo}
}

// kills is how often a test kills a master: KILLS, or a few.
func kills(t *testing.T) int {
	n, err := strconv.Atoi(cmp.Or(os.Getenv("KILLS"), "3"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func start(t *testing.T, config devstack.ClusterConfig) *devstack.Cluster {
	t.Helper()
	config.Version = cmp.Or(config.Version, version())
	c, err := devstack.StartCluster(bounded(t, 5*time.Minute), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Stop() })
	return c
}

func bounded(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

const topic = "orders"

// event is number n of an aggregate.
type event struct {
	Key    string `json:"key"`
	Number int    `json:"number"`
}

func (e event) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: topic, Type: "counted", Subject: e.Key}
}

// service publishes events at a steady pace and handles them, while a test does what it does to the brokers.
type service struct {
	t    *testing.T
	app  *app.App
	pool *pgxpool.Pool

	work sync.WaitGroup
	stop context.CancelFunc

	published  atomic.Int64
	lastEffect atomic.Int64 // Unix nanoseconds of the last handler's call
	lastSent   atomic.Int64 // of the last send of the prober that succeeded
}

const publishers = 2

// load starts a service and its load.
func load(t *testing.T, nameServers []string, transport rocketmq.Transport, change ...func(*app.Config)) *service {
	t.Helper()
	s := &service{t: t}
	pool, schema := testdb.Partitioned(t)
	s.pool = pool
	config := app.Config{
		Service: "shop", Schema: schema, Pool: pool, CreateTopics: true, Topics: []broker.Topic{{Name: topic, Queues: 4}, {Name: "probes", Queues: 4}},
		RocketMQ: rocketmq.Config{NameServers: nameServers, Transport: transport},
		Logger:   slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, f := range change {
		f(&config)
	}
	a, err := app.New(config)
	if err != nil {
		t.Fatal(err)
	}
	s.app = a
	s.exec("CREATE TABLE effect (n bigserial PRIMARY KEY, key text NOT NULL, number int NOT NULL)")
	s.exec("CREATE TABLE account (key text PRIMARY KEY, number int NOT NULL)")
	a.Router().Handle("ledger", topic, "counted", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		d, err := wire.DecodeBody[event](e)
		if err != nil {
			return err
		}
		s.lastEffect.Store(time.Now().UnixNano())
		_, err = tx.Exec(ctx, "INSERT INTO effect (key, number) VALUES ($1, $2)", d.Key, d.Number)
		return err
	})
	if err := a.Start(bounded(t, 2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	for p := range publishers {
		s.work.Go(func() { s.publish(ctx, p) })
	}
	s.work.Go(func() { s.probe(ctx) })
	t.Cleanup(func() {
		cancel()
		s.work.Wait()
		stopping, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := a.Stop(stopping); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return s
}

// testWriter writes a log to a test's.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(string(b[:len(b)-1]))
	return len(b), nil
}

func (s *service) exec(sql string) {
	s.t.Helper()
	if _, err := s.pool.Exec(context.Background(), sql); err != nil {
		s.t.Fatal(err)
	}
}

func (s *service) count(sql string) (n int) {
	s.t.Helper()
	if err := s.pool.QueryRow(context.Background(), sql).Scan(&n); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// publish commits a transaction with an event every 20 ms, of 20 aggregates in turn.
func (s *service) publish(ctx context.Context, publisher int) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		key := fmt.Sprintf("account-%d-%d", publisher, n%20)
		publishing, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		err := s.app.Outbox().Within(publishing, func(ctx context.Context, tx rocketflow.Tx) error {
			var number int
			if err := tx.QueryRow(ctx, "INSERT INTO account AS a VALUES ($1, 1) ON CONFLICT (key) DO UPDATE SET number = a.number + 1 RETURNING number", key).Scan(&number); err != nil {
				return err
			}
			return tx.Publish(ctx, event{key, number})
		})
		cancel()
		if err != nil {
			s.t.Errorf("a transaction failed, which no outage of brokers may do: %v", err)
			return
		}
		s.published.Add(1)
	}
}

// probe sends a message of no stream every 20 ms, as a publisher without an outbox would.
func (s *service) probe(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		sending, cancel := context.WithTimeout(ctx, time.Second)
		if _, err := s.app.Client().Send(sending, broker.Message{Topic: "probes", ShardingKey: "one", Body: []byte("probe")}); err == nil {
			s.lastSent.Store(time.Now().UnixNano())
		}
		cancel()
	}
}

// settle ends the load and checks what came of it.
func (s *service) settle() {
	s.t.Helper()
	s.stop()
	s.work.Wait()
	published := int(s.published.Load())
	poll.Within(s.t, 4*time.Minute, "every event is handled", func() bool {
		return s.count("SELECT count(DISTINCT (key, number)) FROM effect") >= published
	})
	poll.Within(s.t, 2*time.Minute, "nothing is owed", func() bool {
		n, _, err := s.app.Outbox().Backlog(context.Background())
		return err == nil && n == 0
	})
	doubled := s.count("SELECT count(*) - count(DISTINCT (key, number)) FROM effect")
	misordered := s.count("SELECT count(*) FROM (SELECT number <> row_number() OVER (PARTITION BY key ORDER BY n) AS wrong FROM effect) x WHERE wrong")
	lost := published - s.count("SELECT count(DISTINCT (key, number)) FROM effect")
	s.t.Logf("%d events: lost %d, doubled %d, misordered %d", published, lost, doubled, misordered)
	if lost != 0 || doubled != 0 || misordered != 0 {
		s.t.Errorf("%d events: lost %d, doubled %d, misordered %d", published, lost, doubled, misordered)
	}
}

// outage is what an observer saw of one.
type outage struct{ sends, handlers time.Duration }

// watch returns the longest times without a send and without a handler's call from now until end is closed.
func (s *service) watch(end <-chan struct{}) outage {
	var o outage
	sent, handled := s.lastSent.Load(), s.lastEffect.Load()
	note := func() {
		now := time.Now().UnixNano()
		for _, w := range []struct {
			last    *int64
			current int64
			longest *time.Duration
		}{{&sent, s.lastSent.Load(), &o.sends}, {&handled, s.lastEffect.Load(), &o.handlers}} {
			gap := time.Duration(w.current - *w.last)
			if w.current == *w.last {
				gap = time.Duration(now - *w.last)
			}
			*w.longest, *w.last = max(*w.longest, gap), w.current
		}
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		note()
		select {
		case <-end:
			note()
			return o
		case <-tick.C:
		}
	}
}

// flowing waits until sends and handlers go on after at.
func (s *service) flowing(at time.Time, within time.Duration) {
	s.t.Helper()
	poll.Within(s.t, within, "sends and handlers go on", func() bool {
		return s.lastSent.Load() > at.UnixNano() && s.lastEffect.Load() > at.UnixNano()
	})
}
