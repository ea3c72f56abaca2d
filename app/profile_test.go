package app_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// behindProxy returns the configuration of a service whose broker is behind an embedded proxy, with its topics.
func behindProxy(t *testing.T) (app.Config, *rocketmqtest.Server) {
	t.Helper()
	mq := rocketmqtest.RunT(t, rocketmqtest.Config{Version: rocketmqtest.RocketMQ55, Proxy: true})
	pool, schema := testdb.Partitioned(t)
	return app.Config{
		Service: "shop", Pool: pool, Schema: schema, ListenAddr: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler),
		Topics:   []broker.Topic{{Name: "orders", Kind: broker.FIFO, Queues: 2}, {Name: "timeouts", Kind: broker.Delay, Queues: 2}},
		RocketMQ: rocketmq.Config{NameServers: []string{mq.ProxyAddr()}, Profile: rocketmq.Proxy5, Transport: rocketmq.Own},
	}, mq
}

// A service behind a proxy: what it needs is printed before it runs, and created as printed it publishes, handles in order, and its
// timeouts fire from Postgres. No half message and no timer is sent.
func TestServiceBehindAProxy(t *testing.T) {
	t.Parallel()
	c, mq := behindProxy(t)
	a, err := app.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, a)
	handled, overdue := make(chan string, 9), make(chan string, 9)
	handlers.On(a.Router(), "fulfilment", func(ctx context.Context, tx rocketflow.Tx, p Placed) error {
		tx.AfterCommit(func() { handled <- p.ID })
		return a.Timeouts().Arm(ctx, tx, p.ID, "payment", time.Now().Add(300*time.Millisecond), Overdue(p))
	})
	handlers.On(a.Router(), "reminders", func(_ context.Context, tx rocketflow.Tx, p Overdue) error {
		tx.AfterCommit(func() { overdue <- p.ID })
		return nil
	})
	needs, err := a.Requirements()
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"shop-fulfilment", "shop-reminders", "shop_resend"}; !slices.Equal(needs.Groups, want) {
		t.Errorf("groups %q, want %q", needs.Groups, want)
	}
	var names []string
	for _, topic := range needs.Topics {
		if topic.Kind != broker.Normal {
			t.Errorf("topic %+v, want one of type NORMAL", topic)
		}
		names = append(names, topic.Name)
		mq.CreateTopic(topic.Name, topic.Queues)
	}
	if want := []string{"orders", rocketflow.MissingEventsTopic, "timeouts"}; !slices.Equal(names, want) {
		t.Errorf("topics %q, want %q", names, want)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"o-1", "o-2"} {
		if err := a.Outbox().Within(t.Context(), func(ctx context.Context, tx rocketflow.Tx) error { return tx.Publish(ctx, Placed{id}) }); err != nil {
			t.Fatal(err)
		}
		receive(t, handled, id)
		receive(t, overdue, id)
	}
	dump := mq.Dump()
	if dump.Broker.Bytes == 0 {
		t.Error("nothing is stored")
	}
	for _, topic := range []string{"RMQ_SYS_TRANS_HALF_TOPIC", "rmq_sys_wheel_timer"} {
		if n := len(mq.Messages(topic)); n > 0 {
			t.Errorf("%d messages in %s", n, topic)
		}
	}
}

// What the service asks for and the profile can't do is refused by the field that asks for it, with the profile and the reason.
func TestProfileRefusesAtTheStart(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		field, reason string
		change        func(*app.Config)
	}{
		{"app.Config.CreateTopics", "rocketflow topics", func(c *app.Config) { c.CreateTopics = true }},
		{"outbox.Config.Path", "ends of half messages", func(c *app.Config) { c.Outbox.Path = outbox.HalfMessages }},
		{"rocketmq.Config.Transport", "rocketmq-client-go", func(c *app.Config) { c.RocketMQ.Transport = rocketmq.ClientGo }},
		{"rocketmq.Config.TimerHorizon", "scheduled messages", func(c *app.Config) { c.RocketMQ.TimerHorizon = time.Hour }},
	} {
		t.Run(c.field, func(t *testing.T) {
			t.Parallel()
			config, mq := behindProxy(t)
			for _, topic := range config.Topics {
				mq.CreateTopic(topic.Name, 1)
			}
			c.change(&config)
			a, err := app.New(config)
			if err == nil {
				defer stop(t, a)
				err = a.Start(t.Context())
			}
			var field *rocketflow.FieldError
			if !errors.As(err, &field) || field.Field != c.field || !strings.Contains(field.Error(), "profile proxy5") || !strings.Contains(field.Error(), c.reason) {
				t.Errorf("got %v", err)
			}
		})
	}
	config, mq := behindProxy(t)
	mq.CreateTopic("orders", 1)
	config.RocketMQ.Profile, config.Outbox.MaxBody = rocketmq.TencentTDMQ, 5<<20
	var field *rocketflow.FieldError
	if _, err := app.New(config); !errors.As(err, &field) || field.Field != "outbox.Config.MaxBody" {
		t.Errorf("got %v", err)
	}
}
