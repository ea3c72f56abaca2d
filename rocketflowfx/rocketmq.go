package rocketflowfx

import (
	"cmp"
	"context"
	"time"

	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/metrics"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// openTimeout bounds the connecting.
const openTimeout = 10 * time.Second

// RocketMQ provides *rocketmq.Client. It connects when it is built, sees to the topics when the application starts, and
// closes last. While no broker can be reached both are postponed, unless Config.RequireBroker is set.
var RocketMQ = fx.Module("rocketflow.rocketmq", fx.Provide(newRocketMQ))

type rocketMQParams struct {
	fx.In
	Lifecycle fx.Lifecycle
	Config    Config
	Metrics   *metrics.Metrics `optional:"true"`
}

func newRocketMQ(p rocketMQParams) (*rocketmq.Client, error) {
	c := p.Config.RocketMQ
	c.Service = cmp.Or(c.Service, p.Config.Service)
	c.Logger = cmp.Or(c.Logger, p.Config.Logger)
	if c.Clock == nil {
		c.Clock = p.Config.Clock
	}
	if p.Metrics != nil {
		c.Listener = rocketmq.Tee(c.Listener, p.Metrics.RocketMQ())
	}
	if !p.Config.RequireBroker {
		c.AwaitBroker = true
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	client, err := rocketmq.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	// Two hooks: a client whose topics are missing is closed all the same.
	p.Lifecycle.Append(fx.StopHook(client.Close))
	p.Lifecycle.Append(fx.StartHook(func(ctx context.Context) error { return topics(ctx, client, p.Config) }))
	return client, nil
}

func topics(ctx context.Context, client *rocketmq.Client, c Config) error {
	if c.CreateTopics {
		return client.CreateTopics(ctx, append(c.topics(), broker.Topic{Name: rocketflow.MissingEventsTopic, Queues: 2})...)
	}
	return client.VerifyTopics(ctx, topicNames(c.topics())...)
}
