package service

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/rocketflowfx"
)

// Module provides what both services need besides rocketflow: the pool with the service's own tables, metrics, and the
// endpoints for operators.
func Module(c Config, tables string, openAPI []byte) fx.Option {
	return fx.Module("service",
		rocketflowfx.Database,
		fx.Supply(c),
		fx.Provide(
			NewMux,
			newServer,
			fx.Annotate(newRegistry, fx.As(new(prometheus.Registerer)), fx.As(new(prometheus.Gatherer))),
		),
		fx.Invoke(
			func(lifecycle fx.Lifecycle, pool *pgxpool.Pool) { // first: the pool and its tables start before all that uses them
				lifecycle.Append(fx.StartHook(func(ctx context.Context) error { return createTables(ctx, pool, c.Tables, tables) }))
			},
			func(router *handlers.Router, mux *Mux, metrics prometheus.Gatherer) {
				router.Use(Effects)
				mux.Operate(metrics, openAPI)
			},
		),
	)
}

// Serve starts the HTTP server. It stands last among the options, as the server starts last and stops first.
var Serve = fx.Invoke(func(health *app.Health, mux *Mux, _ *Server) { mux.Health(health) })

// Rocketflow returns the Config of rocketflow's modules. Topics are those of the flow.
func (c Config) Rocketflow(topics []broker.Topic) rocketflowfx.Config {
	config := c.rocketflow()
	config.Topics = topics
	return config
}

func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}
