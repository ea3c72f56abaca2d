package rocketflowfx

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow/doctor"
	"github.com/rocketflow/rocketflow/metrics"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/saga"
)

// Doctor provides *doctor.Doctor and runs it, by Config.Doctor or its defaults. It is not part of Module: add it to the services that
// are to examine themselves.
var Doctor = fx.Module("rocketflow.doctor", fx.Provide(newDoctor), fx.Invoke(func(*doctor.Doctor) {}))

type doctorParams struct {
	fx.In
	Lifecycle fx.Lifecycle
	Config    Config
	Pool      *pgxpool.Pool
	Client    *rocketmq.Client
	Sagas     *saga.Engine     `optional:"true"`
	Metrics   *metrics.Metrics `optional:"true"`
}

func newDoctor(p doctorParams) (*doctor.Doctor, error) {
	var c doctor.Config
	if p.Config.Doctor != nil {
		c = *p.Config.Doctor
	}
	d, err := shared(p.Config, p.Pool, p.Client, p.Metrics).NewDoctor(c, p.Config.RocketMQ, p.Config.Outbox, p.Config.Handlers, p.Sagas)
	if err != nil {
		return nil, err
	}
	p.Lifecycle.Append(migrated(p.Config, p.Pool, d))
	return d, nil
}
