package service

import (
	"context"
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// Module is what surrounds a service: its database with its tables, metrics, and the operators' part of its HTTP
// interface.
func Module(c Config, tables string, openAPI []byte) fx.Option {
	return fx.Module("service",
		fx.Supply(c),
		fx.Provide(
			NewMux,
			newServer,
			fx.Annotate(newRegistry, fx.As(new(prometheus.Registerer)), fx.As(new(prometheus.Gatherer))),
			func(lc fx.Lifecycle) (*pgxpool.Pool, error) {
				pool, err := OpenDatabase(context.Background(), c, tables)
				if err == nil {
					lc.Append(fx.StopHook(pool.Close))
				}
				return pool, err
			},
		),
		fx.Invoke(func(p operated) {
			p.Router.Use(Effects)
			p.Mux.Operate(Operations{Pool: p.Pool, Broker: p.Client, Consumers: p.Router, Metrics: p.Metrics, OpenAPI: openAPI})
		}),
	)
}

type operated struct {
	fx.In
	Mux     *Mux
	Pool    *pgxpool.Pool
	Client  *rocketmq.Client
	Router  *handlers.Router
	Metrics prometheus.Gatherer
}

// Serve listens. It is the last to be started and the first to be stopped, so it stands last among the options.
var Serve = fx.Invoke(func(*Server) {})

// Rocketflow is what rocketflow's modules need to know.
func (c Config) Rocketflow(topics []broker.Topic, log *slog.Logger) rocketflowfx.Config {
	return rocketflowfx.Config{
		Service:      c.Name,
		Schema:       c.RocketflowSchema,
		Topics:       topics,
		CreateTopics: c.CreateTopics,
		RocketMQ: rocketmq.Config{
			NameServers: c.NameServers, AccessKey: c.AccessKey, SecretKey: c.SecretKey, Namespace: c.Namespace,
		},
		Logger: log,
	}
}

func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}
