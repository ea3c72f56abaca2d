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

// Saga provides *saga.Engine. Register definitions with it from a constructor or an fx.Invoke.
var Saga = fx.Module("rocketflow.saga", fx.Provide(newSaga))

type sagaParams struct {
	fx.In
	Lifecycle  fx.Lifecycle
	Config     Config
	Pool       *pgxpool.Pool
	Router     *handlers.Router
	Transactor rocketflow.Transactor
	Timer      *timeout.Scheduler
	Metrics    *metrics.Metrics `optional:"true"`
}

func newSaga(p sagaParams) (*saga.Engine, error) {
	e, err := shared(p.Config, p.Pool, nil, p.Metrics).NewEngine(p.Config.Saga, p.Router, p.Transactor, p.Timer)
	if err != nil {
		return nil, err
	}
	p.Lifecycle.Append(migrated(p.Config, p.Pool, e))
	return e, nil
}
