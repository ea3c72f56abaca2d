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
	"github.com/rocketflow/rocketflow/metrics"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/timeout"
)

// Module is what surrounds a service: its database with its tables, metrics, and the operators' part of its HTTP
// interface.
func Module(c Config, tables string, openAPI []byte) fx.Option {
	return fx.Module("service",
		fx.Supply(c),
		fx.Provide(
			NewMux,
			newServer,
			newRegistry,
			func(r *prometheus.Registry) *metrics.Metrics { return metrics.New(r) },
			func(lc fx.Lifecycle) (*pgxpool.Pool, error) {
				pool, err := OpenDatabase(context.Background(), c, tables)
				if err == nil {
					lc.Append(fx.StopHook(pool.Close))
				}
				return pool, err
			},
		),
		fx.Invoke(func(p operated) {
			if p.Timer != nil {
				p.Router.Use(p.Timer.Fence) // before Effects: what the fence holds back has none
			}
			p.Router.Use(Effects)
			p.Metrics.ObserveBacklog(p.Outbox)
			p.Mux.Operate(Operations{Pool: p.Pool, Broker: p.Client, Consumers: p.Router, Metrics: p.Registry, OpenAPI: openAPI})
		}),
	)
}

type operated struct {
	fx.In
	Mux      *Mux
	Pool     *pgxpool.Pool
	Client   *rocketmq.Client
	Outbox   *outbox.Outbox
	Router   *handlers.Router
	Timer    *timeout.Scheduler `optional:"true"`
	Metrics  *metrics.Metrics
	Registry *prometheus.Registry
}

// Serve listens. It is the last to be started and the first to be stopped, so it stands last among the options.
var Serve = fx.Invoke(func(*Server) {})

// Rocketflow is what rocketflow's modules need to know.
func (c Config) Rocketflow(topics []broker.Topic, log *slog.Logger, m *metrics.Metrics) rocketflowfx.Config {
	return rocketflowfx.Config{
		Service:      c.Name,
		Schema:       c.RocketflowSchema,
		Topics:       topics,
		CreateTopics: c.CreateTopics,
		RocketMQ: rocketmq.Config{
			NameServers: c.NameServers, AccessKey: c.AccessKey, SecretKey: c.SecretKey, Namespace: c.Namespace,
			Listener: m.RocketMQ(),
		},
		Outbox:   outbox.Config{Listener: m.Outbox()},
		Handlers: handlers.Config{Listener: m.Handlers()},
		Timeout:  timeout.Config{Listener: *m.Timeout()},
		Saga:     saga.Config{Listener: *m.Saga()},
		Logger:   log,
	}
}

func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}
