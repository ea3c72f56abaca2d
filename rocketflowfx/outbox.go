package rocketflowfx

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/assembly"
	"github.com/rocketflow/rocketflow/metrics"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// Outbox provides *outbox.Outbox, also as rocketflow.Transactor.
var Outbox = fx.Module("rocketflow.outbox",
	fx.Provide(fx.Annotate(newOutbox, fx.As(fx.Self()), fx.As(new(rocketflow.Transactor)))),
)

type outboxParams struct {
	fx.In
	Lifecycle fx.Lifecycle
	Config    Config
	Pool      *pgxpool.Pool
	Client    *rocketmq.Client
	Metrics   *metrics.Metrics `optional:"true"`
}

func newOutbox(p outboxParams) (*outbox.Outbox, error) {
	o, err := shared(p.Config, p.Pool, p.Client, p.Metrics).NewOutbox(p.Config.Outbox, assembly.TopicNames(topics(p.Config)))
	if err != nil {
		return nil, err
	}
	p.Lifecycle.Append(migrated(p.Config, p.Pool, o))
	return o, nil
}
