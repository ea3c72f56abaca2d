package rocketflowfx

import (
	"cmp"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/metrics"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/timeout"
)

// Handlers provides *handlers.Router. Register with it from an fx.Invoke: it starts when the application does.
var Handlers = fx.Module("rocketflow.handlers", fx.Provide(newHandlers))

type handlersParams struct {
	fx.In
	Lifecycle  fx.Lifecycle
	Config     Config
	Pool       *pgxpool.Pool
	Client     *rocketmq.Client
	Transactor rocketflow.Transactor

	// Built first, and so started before the handlers that arm, and stopped after them.
	Timer *timeout.Scheduler `optional:"true"`

	Metrics *metrics.Metrics `optional:"true"`
}

func newHandlers(p handlersParams) (*handlers.Router, error) {
	c := p.Config.Handlers
	c.Pool = cmp.Or(c.Pool, p.Pool)
	if c.Broker == nil {
		c.Broker = p.Client
	}
	if c.Transactor == nil {
		c.Transactor = p.Transactor
	}
	if c.Requester == nil {
		c.Requester, _ = p.Transactor.(handlers.Requester) // the outbox, unless the application decorates it
	}
	c.Source = cmp.Or(c.Source, p.Config.Service)
	c.Schema = cmp.Or(c.Schema, p.Config.Schema)
	c.Logger = cmp.Or(c.Logger, p.Config.Logger)
	if c.Clock == nil {
		c.Clock = p.Config.Clock
	}
	if p.Metrics != nil {
		c.Listener = handlers.Tee(c.Listener, p.Metrics.Handlers())
	}
	r, err := handlers.New(c)
	if err != nil {
		return nil, err
	}
	if p.Timer != nil {
		// Handlers leave it to the fence that the event of a timeout takes effect once. It stands before all other middleware,
		// so that these don't see what it holds back.
		r.Use(p.Timer.Fence)
	}
	p.Lifecycle.Append(fx.StartStopHook(r.Start, r.Stop))
	return r, nil
}
