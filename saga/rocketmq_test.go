// The client that package rocketmq drives has data races of its own when members of a group come and go.
//go:build !race

package saga_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testbroker"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/timeout"
)

var _ saga.Router = (*handlers.Router)(nil)

// topic is random, so that runs don't share it.
var topic = "saga-test-" + uuid.NewString()[:8]

type bought struct{ Key string }

func (p bought) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: topic, Type: "bought", Subject: p.Key}
}

type cart struct {
	Key string
	Due time.Time
}

type expired struct{ Key string }

func (p expired) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: topic, Type: "expired", Subject: p.Key}
}

// All parts together on a broker: some carts are bought, the others expire, some of both at the same time.
func TestOnRocketMQ(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	pool, schema := testdb.Partitioned(t)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	client := testbroker.Open(t, rocketmq.Config{NameServers: testbroker.NameServers(t), Service: "saga-test"})
	check(client.CreateTopics(ctx, broker.Topic{Name: topic, Queues: 2}))

	box, err := outbox.New(outbox.Config{Pool: pool, Broker: client, Source: topic, Schema: schema})
	check(err)
	router, err := handlers.New(handlers.Config{Pool: pool, Source: topic, Transactor: box, Broker: client, Schema: schema})
	check(err)
	timer, err := timeout.New(timeout.Config{Pool: pool, Broker: client, Schema: schema, Source: topic})
	check(err)
	router.Use(timer.Fence) // the engine fences its deadlines too: once or twice is the same
	engine, err := saga.New(saga.Config{Pool: pool, Schema: schema, Router: router, Transactor: box, Consumer: "sagas", Timer: timer, TimeoutTopic: topic})
	check(err)

	d := saga.Define[cart]("cart", 1).Initial("open").Final("bought", "expired").
		Deadline("open", "expired", func(d *cart) time.Time { return d.Due },
			func(ctx context.Context, tx rocketflow.Tx, d *cart) error { return tx.Publish(ctx, expired{d.Key}) })
	saga.On[bought](d, "open", "bought", nil)
	carts, err := saga.Register(engine, d)
	check(err)
	news := make(chan string, 100)
	handlers.On(router, "news", func(_ context.Context, tx rocketflow.Tx, p expired) error {
		tx.AfterCommit(func() { news <- p.Key })
		return nil
	})
	for _, part := range []interface {
		Start(context.Context) error
		Stop(context.Context) error
	}{box, timer, engine, router} {
		check(part.Start(ctx))
		t.Cleanup(func() { check(part.Stop(context.Background())) })
	}

	const n = 30
	begun := time.Now()
	keys := make([]string, n)
	for i := range keys {
		keys[i] = uuid.NewString()
		due := time.Now().Add(2 * time.Second)
		if i%3 == 0 {
			due = due.Add(5 * time.Minute) // bought in time on any machine
		}
		check(box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
			return carts.Begin(ctx, tx, keys[i], cart{keys[i], due})
		}))
	}
	for i, key := range keys {
		buy := func() error {
			return testdb.Retry(func() error {
				return box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error { return tx.Publish(ctx, bought{key}) })
			})
		}
		switch i % 3 {
		case 0:
			check(buy())
		case 1: // about when the deadline passes
			done := make(chan error, 1)
			time.AfterFunc(time.Until(begun.Add(2*time.Second+time.Duration(i)*10*time.Millisecond)), func() { done <- buy() })
			defer func() { check(<-done) }()
		}
	}
	states := map[string]int{}
	reported := map[string]bool{}
	for i, key := range keys {
		var at saga.Instance[cart]
		poll.Within(t, 30*time.Second, key+" to finish", func() bool {
			at, err = carts.Get(ctx, pool, key)
			check(err)
			return at.Finished()
		})
		states[at.State]++
		switch {
		case at.Revision != 2:
			t.Errorf("%s made %d transitions", key, at.Revision-1)
		case i%3 == 0 && at.State != "bought", i%3 == 2 && at.State != "expired":
			t.Errorf("%s is %s", key, at.State)
		case at.State == "expired" && at.FinishedAt.Before(at.Data.Due.Truncate(time.Millisecond)):
			t.Errorf("%s expired %v before its deadline", key, at.Data.Due.Sub(at.FinishedAt))
		}
	}
	for range states["expired"] {
		select {
		case key := <-news:
			if reported[key] {
				t.Errorf("%s expired twice", key)
			}
			reported[key] = true
		case <-ctx.Done():
			t.Fatal("not all expiries were reported")
		}
	}
	t.Log(states)
	var left int
	check(pool.QueryRow(ctx, "SELECT count(*) FROM timeout").Scan(&left))
	if left != 0 {
		t.Errorf("%d timeouts left", left)
	}
}
