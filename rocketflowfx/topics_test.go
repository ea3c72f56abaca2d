package rocketflowfx_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"go.uber.org/fx"
	"go.uber.org/fx/fxtest"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

type toTopic string

func (t toTopic) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: string(t), Type: "parcel.shipped", Subject: "p-1"}
}

// Publish accepts events of the configured topics and refuses others.
func TestPublishRefusesAnUnknownTopic(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		change         func(*rocketflowfx.Config)
		known, unknown []string
	}{
		{"of Topics", func(*rocketflowfx.Config) {}, []string{"parcels", rocketflow.MissingEventsTopic}, []string{"parcel", "timeouts"}},
		{"of sagas' timeouts", func(c *rocketflowfx.Config) { c.Saga.TimeoutTopic = "timeouts" }, []string{"parcels", "timeouts"}, []string{"parcel"}},
		{"of Outbox.Topics", func(c *rocketflowfx.Config) {
			c.Topics = append(c.Topics, broker.Topic{Name: "read-only", Queues: 2})
			c.Outbox.Topics = []string{"parcels"}
		}, []string{"parcels"}, []string{"read-only"}},
		{"none", func(c *rocketflowfx.Config) { c.Topics = nil }, []string{"parcels", "parcel"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pool, config := shop(t)
			c.change(&config)
			var o *outbox.Outbox
			app := fxtest.New(t, rocketflowfx.RocketMQ, rocketflowfx.Outbox, fx.Supply(pool, config), fx.Populate(&o))
			app.RequireStart()
			defer app.RequireStop()
			publish := func(topic string) error {
				return o.Within(t.Context(), func(ctx context.Context, tx rocketflow.Tx) error { return tx.Publish(ctx, toTopic(topic)) })
			}
			for _, topic := range c.known {
				if err := publish(topic); err != nil {
					t.Errorf("topic %s: %v", topic, err)
				}
			}
			for _, topic := range c.unknown {
				err := publish(topic)
				var field *rocketflow.FieldError
				if !errors.As(err, &field) || field.Field != "topic" || !strings.Contains(err.Error(), topic) || !strings.Contains(err.Error(), "parcels") {
					t.Errorf("topic %s: got %v, want an error that names it and the known ones", topic, err)
				}
			}
		})
	}
}

// The topic of sagas' timeouts must exist like the others.
func TestMissingTimeoutTopicIsAnError(t *testing.T) {
	t.Parallel()
	pool, config := shop(t)
	client := testbroker.Open(t, rocketmq.Config{NameServers: testbroker.NameServers(t), Service: "test", Namespace: config.RocketMQ.Namespace})
	if err := client.CreateTopics(t.Context(), config.Topics...); err != nil {
		t.Fatal(err)
	}
	config.CreateTopics, config.Saga.TimeoutTopic = false, "timeouts"
	app := fx.New(rocketflowfx.RocketMQ, fx.NopLogger, fx.Supply(pool, config), fx.Invoke(func(*rocketmq.Client) {}))
	if err := app.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "timeouts") {
		t.Errorf("error is %v, want one that names the topic", err)
	}
	if err := app.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}
