package rocketflowfx

import (
	"cmp"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/metrics"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/timeout"
)

// Saga provides *saga.Engine. Register definitions with it from a constructor or an fx.Invoke.
var Saga = fx.Module("rocketflow.saga", fx.Provide(newSaga))

type sagaParams struct {
	fx.In
	Lifecycle fx.Lifecycle
	Config    Config
	Pool      *pgxpool.Pool
	Router    *handlers.Router

	Transactor rocketflow.Transactor

	Timer   *timeout.Scheduler
	Metrics *metrics.Metrics `optional:"true"`
}

func newSaga(p sagaParams) (*saga.Engine, error) {
	c := p.Config.Saga
	c.Pool = cmp.Or(c.Pool, p.Pool)
	c.Schema = cmp.Or(c.Schema, p.Config.Schema)
	if c.Router == nil {
		c.Router = p.Router
	}
	if c.Transactor == nil {
		c.Transactor = p.Transactor
	}
	if c.Timer == nil {
		c.Timer = p.Timer
	}
	c.Consumer = cmp.Or(c.Consumer, p.Config.Service)
	c.Logger = cmp.Or(c.Logger, p.Config.Logger)
	if c.Clock == nil {
		c.Clock = p.Config.Clock
	}
	if p.Metrics != nil {
		c.Listener = saga.Tee(c.Listener, p.Metrics.Saga())
	}
	e, err := saga.New(c)
	if err != nil {
		return nil, err
	}
	p.Lifecycle.Append(fx.StartStopHook(e.Start, e.Stop))
	return e, nil
}
