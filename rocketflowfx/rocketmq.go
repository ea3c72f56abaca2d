package rocketflowfx

import (
	"context"

	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow/internal/assembly"
	"github.com/rocketflow/rocketflow/metrics"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// RocketMQ provides *rocketmq.Client. The client connects when it is built, verifies or creates the topics when the
// application starts, and closes last. While no broker can be reached it does so later, unless Config.RequireBroker is set.
var RocketMQ = fx.Module("rocketflow.rocketmq", fx.Provide(newRocketMQ))

type rocketMQParams struct {
	fx.In
	Lifecycle fx.Lifecycle
	Config    Config
	Metrics   *metrics.Metrics `optional:"true"`
}

func newRocketMQ(p rocketMQParams) (*rocketmq.Client, error) {
	client, err := shared(p.Config, nil, nil, p.Metrics).OpenClient(p.Config.RocketMQ, p.Config.RequireBroker)
	if err != nil {
		return nil, err
	}
	// Two hooks, so that a client whose topics are missing is closed all the same.
	p.Lifecycle.Append(fx.StopHook(client.Close))
	p.Lifecycle.Append(fx.StartHook(func(ctx context.Context) error {
		return assembly.PrepareTopics(ctx, client, topics(p.Config), p.Config.CreateTopics)
	}))
	return client, nil
}
