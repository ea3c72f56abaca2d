package rocketflowfx

import (
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
	s, err := shared(p.Config, p.Pool, p.Client, p.Metrics).NewScheduler(p.Config.Timeout)
	if err != nil {
		return nil, err
	}
	p.Lifecycle.Append(migrated(p.Config, p.Pool, s))
	return s, nil
}
