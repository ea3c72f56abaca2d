package rocketflowfx

import (
	"cmp"
	"context"
	"time"

	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow/rocketmq"
)

// openTimeout bounds the connecting.
const openTimeout = 10 * time.Second

// RocketMQ provides *rocketmq.Client. It connects when it is built, sees to the topics when the application starts, and
// closes last.
var RocketMQ = fx.Module("rocketflow.rocketmq", fx.Provide(newRocketMQ))

type rocketMQParams struct {
	fx.In
	Lifecycle fx.Lifecycle
	Config    Config
}

func newRocketMQ(p rocketMQParams) (*rocketmq.Client, error) {
	c := p.Config.RocketMQ
	c.Service = cmp.Or(c.Service, p.Config.Service)
	c.Logger = cmp.Or(c.Logger, p.Config.Logger)
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	client, err := rocketmq.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	p.Lifecycle.Append(fx.StartStopHook(func(ctx context.Context) error {
		return topics(ctx, client, p.Config)
	}, client.Close))
	return client, nil
}

func topics(ctx context.Context, client *rocketmq.Client, c Config) error {
	if c.CreateTopics {
		return client.CreateTopics(ctx, c.Topics...)
	}
	names := make([]string, len(c.Topics))
	for i, t := range c.Topics {
		names[i] = t.Name
	}
	return client.VerifyTopics(ctx, names...)
}
