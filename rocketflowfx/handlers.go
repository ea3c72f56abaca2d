package rocketflowfx

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/metrics"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/timeout"
)

// Handlers provides *handlers.Router. Register handlers with it from an fx.Invoke: it starts when the application does. If
// the module Timeout is there the scheduler's fence is the router's outermost middleware.
var Handlers = fx.Module("rocketflow.handlers", fx.Provide(newHandlers))

type handlersParams struct {
	fx.In
	Lifecycle  fx.Lifecycle
	Config     Config
	Pool       *pgxpool.Pool
	Client     *rocketmq.Client
	Transactor rocketflow.Transactor

	// Timer is built first, and so started before the handlers that arm timeouts, and stopped after them.
	Timer *timeout.Scheduler `optional:"true"`

	Metrics *metrics.Metrics `optional:"true"`
}

func newHandlers(p handlersParams) (*handlers.Router, error) {
	r, err := shared(p.Config, p.Pool, p.Client, p.Metrics).NewRouter(p.Config.Handlers, p.Transactor, p.Timer)
	if err != nil {
		return nil, err
	}
	p.Lifecycle.Append(migrated(p.Config, p.Pool, r))
	return r, nil
}
