// The client that package rocketmq drives has data races of its own when members of a group come and go.
//go:build !race

package handlers

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// The same on a real RocketMQ with a real outbox: two processes, many aggregates, some failures; each event has its
// effect once and in order.
func TestOnRocketMQ(t *testing.T) {
	t.Parallel()
	servers := os.Getenv("ROCKETMQ_NAMESRV")
	if servers == "" {
		t.Fatal("ROCKETMQ_NAMESRV is not set: run `make test`, or start servers with `make dev` and export the two variables that it prints")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	name := "handlers-test-" + uuid.NewString()[:8]
	b := setup(t)
	open := func() *rocketmq.Client {
		client, err := rocketmq.Open(ctx, rocketmq.Config{NameServers: strings.Split(servers, ";"), Service: "handlers-test"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := client.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
		return client
	}
	client := open()
	if err := client.CreateTopics(ctx, broker.Topic{Name: name, Queues: 4, Kind: broker.Transaction}); err != nil {
		t.Fatal(err)
	}
	box, err := outbox.New(outbox.Config{Pool: b.pool, Broker: client, Source: name, Schema: b.schema})
	if err != nil {
		t.Fatal(err)
	}
	if err := box.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := box.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	var calls atomic.Int64
	for range 2 {
		cfg := b.config()
		cfg.Broker, cfg.Transactor, cfg.Source = open(), box, name
		r := b.router(cfg)
		r.Handle("billing", name, "order.changed", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
			if err := effect(ctx, tx, e); err != nil {
				return err
			}
			if calls.Add(1)%50 == 0 {
				return errors.New("now and then")
			}
			return tx.Publish(ctx, rocketflow.Event{Topic: name, Type: "order.billed", Subject: e.Subject, Body: []byte("{}")})
		})
		r.Handle("shipping", name, "order.billed", effect)
		b.start(r)
	}
	const streams, length = 10, 20
	var publishers errgroup.Group
	for i := range streams {
		publishers.Go(func() error {
			for range length {
				err := testdb.Retry(func() error {
					return box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
						return tx.Publish(ctx, rocketflow.Event{Topic: name, Type: "order.changed", Subject: subjectN(i), Body: []byte("{}")})
					})
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := publishers.Wait(); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "all had their effect", func() bool { return b.effectCount() >= 2*streams*length })
	for _, consumer := range []string{"billing", "shipping"} {
		disorder := b.count(`SELECT count(*) FROM (
			SELECT sequence <= lag(sequence) OVER (PARTITION BY subject ORDER BY n) AS wrong FROM effect WHERE consumer = $1) x WHERE wrong`, consumer)
		events := b.count("SELECT count(DISTINCT event) FROM effect WHERE consumer = $1", consumer)
		effects := b.count("SELECT count(*) FROM effect WHERE consumer = $1", consumer)
		if disorder != 0 || events != streams*length || effects != events {
			t.Errorf("%s: %d effects of %d events, %d out of order", consumer, effects, events, disorder)
		}
	}
}
