package rocketflowfx

import (
	"cmp"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/metrics"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// Outbox provides *outbox.Outbox, also as rocketflow.Transactor.
var Outbox = fx.Module("rocketflow.outbox",
	fx.Provide(fx.Annotate(newOutbox, fx.As(fx.Self()), fx.As(new(rocketflow.Transactor)))),
)

type outboxParams struct {
	fx.In
	Lifecycle fx.Lifecycle
	Config    Config
	Pool      *pgxpool.Pool
	Client    *rocketmq.Client
	Metrics   *metrics.Metrics `optional:"true"`
}

func newOutbox(p outboxParams) (*outbox.Outbox, error) {
	c := p.Config.Outbox
	c.Pool = cmp.Or(c.Pool, p.Pool)
	if c.Broker == nil {
		c.Broker = p.Client
	}
	c.Source = cmp.Or(c.Source, p.Config.Service)
	c.Schema = cmp.Or(c.Schema, p.Config.Schema)
	c.Logger = cmp.Or(c.Logger, p.Config.Logger)
	if c.Topics == nil {
		c.Topics = topicNames(p.Config.topics())
	}
	if c.Clock == nil {
		c.Clock = p.Config.Clock
	}
	if p.Metrics != nil {
		c.Listener = outbox.Tee(c.Listener, p.Metrics.Outbox())
	}
	o, err := outbox.New(c)
	if err != nil {
		return nil, err
	}
	if p.Metrics != nil {
		p.Metrics.ObserveBacklog(o)
	}
	p.Lifecycle.Append(fx.StartStopHook(o.Start, o.Stop))
	return o, nil
}
