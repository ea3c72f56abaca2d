package rocketflowfx

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/metrics"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/timeout"
)

// Saga provides *saga.Engine. Register definitions with it from a constructor or an fx.Invoke. The engine starts before the
// router of the module Handlers takes events, and stops after it: events of running sagas that no definition fits are not
// handled.
var Saga = fx.Module("rocketflow.saga", fx.Provide(newSaga))

type sagaParams struct {
	fx.In
	Lifecycle  fx.Lifecycle
	Config     Config
	Pool       *pgxpool.Pool
	Router     *handlers.Router
	Transactor rocketflow.Transactor
	Timer      *timeout.Scheduler
	Before     *beforeHandlers  `optional:"true"` // nil: the application provides the router
	Metrics    *metrics.Metrics `optional:"true"`
}

func newSaga(p sagaParams) (*saga.Engine, error) {
	e, err := shared(p.Config, p.Pool, nil, p.Metrics).NewEngine(p.Config.Saga, p.Router, p.Transactor, p.Timer)
	if err != nil {
		return nil, err
	}
	hook := migrated(p.Config, p.Pool, e)
	if p.Before != nil {
		p.Before.hook = hook
	} else {
		p.Lifecycle.Append(hook)
	}
	return e, nil
}
