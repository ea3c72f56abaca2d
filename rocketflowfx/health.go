package rocketflowfx

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// Health provides *app.Health, which reports whether the service is ready and what is degraded. Depend on it last, such as from
// the constructor of the HTTP server: it is ready from its own start on.
var Health = fx.Module("rocketflow.health", fx.Provide(newHealth))

type healthParams struct {
	fx.In
	Lifecycle fx.Lifecycle
	Config    Config
	Pool      *pgxpool.Pool
	Client    *rocketmq.Client
	Outbox    *outbox.Outbox
	Router    *handlers.Router
}

func newHealth(p healthParams) *app.Health {
	h := app.NewHealth(app.HealthConfig{Service: p.Config.Service, Pool: p.Pool, Client: p.Client, Outbox: p.Outbox, Router: p.Router})
	p.Lifecycle.Append(fx.StartStopHook(h.Start, h.Stop))
	return h
}
