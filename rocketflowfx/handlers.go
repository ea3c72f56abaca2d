package rocketflowfx

import (
	"context"

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

// beforeHandlers is a place among the hooks before that of the router, for a part that is built after the router and starts
// before it: fx runs hooks in the order in which the constructors append them.
type beforeHandlers struct {
	hook fx.Hook // of the engine of sagas; zero: there is none
}

func (b *beforeHandlers) start(ctx context.Context) error { return call(ctx, b.hook.OnStart) }
func (b *beforeHandlers) stop(ctx context.Context) error  { return call(ctx, b.hook.OnStop) }

// call calls fn unless it is nil.
func call(ctx context.Context, fn func(context.Context) error) error {
	if fn == nil {
		return nil
	}
	return fn(ctx)
}

func newHandlers(p handlersParams) (*handlers.Router, *beforeHandlers, error) {
	r, err := shared(p.Config, p.Pool, p.Client, p.Metrics).NewRouter(p.Config.Handlers, p.Transactor, p.Timer)
	if err != nil {
		return nil, nil, err
	}
	before := &beforeHandlers{}
	p.Lifecycle.Append(fx.StartStopHook(before.start, before.stop))
	p.Lifecycle.Append(migrated(p.Config, p.Pool, r))
	return r, before, nil
}
