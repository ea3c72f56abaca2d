// The client that package rocketmq drives has data races of its own when members of a group come and go.
//go:build !race

package handlers

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/testbroker"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// rocketmqBundle is a bundle with a topic of a real RocketMQ and a started outbox.
type rocketmqBundle struct {
	*bundle
	ctx    context.Context
	name   string // of the topic and of the service
	outbox *outbox.Outbox
}

func setupRocketMQ(t *testing.T) *rocketmqBundle {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	t.Cleanup(cancel)
	b := &rocketmqBundle{bundle: setup(t), ctx: ctx, name: "handlers-test-" + uuid.NewString()[:8]}
	client := b.open()
	if err := client.CreateTopics(ctx, broker.Topic{Name: b.name, Queues: 4, Kind: broker.Transaction}); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.outbox, err = outbox.New(outbox.Config{Pool: b.pool, Broker: client, Source: b.name, Schema: b.schema}); err != nil {
		t.Fatal(err)
	}
	if err := b.outbox.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.outbox.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return b
}

// open returns a client, which is closed when the test ends.
func (b *rocketmqBundle) open() *rocketmq.Client {
	b.t.Helper()
	return testbroker.Open(b.t, rocketmq.Config{NameServers: testbroker.NameServers(b.t), Service: "handlers-test"})
}

// publishTo publishes a number of events to each of some streams, concurrently.
func (b *rocketmqBundle) publishTo(streams, length int) error {
	var publishers errgroup.Group
	for i := range streams {
		publishers.Go(func() error {
			for range length {
				err := testdb.Retry(func() error {
					return b.outbox.Within(b.ctx, func(ctx context.Context, tx rocketflow.Tx) error {
						return tx.Publish(ctx, rocketflow.Event{Topic: b.name, Type: "order.changed", Subject: subjectN(i), Body: []byte("{}")})
					})
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return publishers.Wait()
}

// wantOnceInOrder fails unless a consumer has handled so many events, once each and in the order of their streams.
func (b *rocketmqBundle) wantOnceInOrder(consumer string, n int) {
	b.t.Helper()
	disorder := b.count(`SELECT count(*) FROM (
		SELECT sequence <= lag(sequence) OVER (PARTITION BY subject ORDER BY n) AS wrong FROM effect WHERE consumer = $1) x WHERE wrong`, consumer)
	events := b.count("SELECT count(DISTINCT event) FROM effect WHERE consumer = $1", consumer)
	effects := b.count("SELECT count(*) FROM effect WHERE consumer = $1", consumer)
	if disorder != 0 || events != n || effects != events {
		b.t.Errorf("%s: %d effects of %d events, %d out of order", consumer, effects, events, disorder)
	}
}

// The same on a real RocketMQ with a real outbox: two processes, many aggregates, some failures; each event has its
// effect once and in order.
func TestOnRocketMQ(t *testing.T) {
	t.Parallel()
	b := setupRocketMQ(t)
	var calls atomic.Int64
	for range 2 {
		cfg := b.config()
		cfg.Broker, cfg.Transactor, cfg.Source = b.open(), b.outbox, b.name
		r := b.router(cfg)
		r.Handle("billing", b.name, "order.changed", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
			if err := effect(ctx, tx, e); err != nil {
				return err
			}
			if calls.Add(1)%50 == 0 {
				return errors.New("now and then")
			}
			return tx.Publish(ctx, rocketflow.Event{Topic: b.name, Type: "order.billed", Subject: e.Subject, Body: []byte("{}")})
		})
		r.Handle("shipping", b.name, "order.billed", effect)
		b.start(r)
	}
	const streams, length = 10, 20
	if err := b.publishTo(streams, length); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "all had their effect", func() bool { return b.effectCount() >= 2*streams*length })
	b.wantOnceInOrder("billing", streams*length)
	b.wantOnceInOrder("shipping", streams*length)
}

// A consumer, then a handler, is paused and resumed under load on a real RocketMQ with a real outbox: two processes, which hold what they
// have received and leave the rest at the broker. Each event has its effect once, in order, at the first attempt.
func TestPauseOnRocketMQ(t *testing.T) {
	t.Parallel()
	b := setupRocketMQ(t)
	var routers []*Router
	for range 2 {
		cfg := b.config()
		cfg.Broker, cfg.Transactor, cfg.Source, cfg.MaxInFlight, cfg.Lanes = b.open(), b.outbox, b.name, 32, 2
		r := b.router(cfg)
		r.Handle("billing", b.name, "order.changed", effect)
		b.start(r)
		routers = append(routers, r)
	}
	const streams, length, rounds = 10, 15, 3
	for _, target := range []operate.PauseTarget{
		{Kind: operate.PauseConsumer, Consumer: "billing"},
		{Kind: operate.PauseHandler, Consumer: "billing", Topic: b.name, Type: "order.changed"},
	} {
		begin := b.effectCount()
		var load errgroup.Group
		load.Go(func() error { return b.publishTo(streams, length) })
		poll.Until(t, "the consumer is at work", func() bool { return b.effectCount() > begin+streams })
		b.pause(target)
		poll.Until(t, "both processes hold", func() bool { return len(routers[0].Paused()) == 1 && len(routers[1].Paused()) == 1 })
		before := b.effectCount()
		if err := errors.Join(load.Wait(), b.publishTo(streams, length*(rounds-1))); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			b.looksAgain(routers[0])
		}
		if n := b.effectCount(); n > before+2*2*64 || n == begin+streams*length*rounds { // the turns that had begun
			t.Errorf("%d effects while %v is paused, %d before", n-begin, target, before-begin)
		}
		at := b.effectCount()
		b.looksAgain(routers[1])
		if n := b.effectCount(); n != at {
			t.Errorf("%v goes on while it is paused: %d effects, then %d", target, at, n)
		}
		b.resume(target)
		poll.Until(t, "all had their effect", func() bool { return b.effectCount() >= begin+streams*length*rounds })
	}
	b.wantOnceInOrder("billing", 2*streams*length*rounds)
	if n := b.count("SELECT count(*) FROM effect WHERE attempt <> 1"); n != 0 || b.count("SELECT count(*) FROM parked") != 0 {
		t.Errorf("%d attempts were counted", n)
	}
}
