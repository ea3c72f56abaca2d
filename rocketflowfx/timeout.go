package rocketflowfx

import (
	"cmp"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow/metrics"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/timeout"
)

// Timeout provides *timeout.Scheduler.
var Timeout = fx.Module("rocketflow.timeout", fx.Provide(newTimeout))

type timeoutParams struct {
	fx.In
	Lifecycle fx.Lifecycle
	Config    Config
	Pool      *pgxpool.Pool
	Client    *rocketmq.Client
	Metrics   *metrics.Metrics `optional:"true"`
}

func newTimeout(p timeoutParams) (*timeout.Scheduler, error) {
	c := p.Config.Timeout
	c.Pool = cmp.Or(c.Pool, p.Pool)
	if c.Broker == nil {
		c.Broker = p.Client
	}
	c.Source = cmp.Or(c.Source, p.Config.Service)
	c.Schema = cmp.Or(c.Schema, p.Config.Schema)
	c.Logger = cmp.Or(c.Logger, p.Config.Logger)
	if c.Clock == nil {
		c.Clock = p.Config.Clock
	}
	if p.Metrics != nil {
		c.Listener = timeout.Tee(c.Listener, p.Metrics.Timeout())
	}
	s, err := timeout.New(c)
	if err != nil {
		return nil, err
	}
	p.Lifecycle.Append(fx.StartStopHook(s.Start, s.Stop))
	return s, nil
}
