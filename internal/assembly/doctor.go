package assembly

import (
	"cmp"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/doctor"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/saga"
)

// NewDoctor builds the doctor, which examines the service's own schema and broker, and expects what the parts are configured with.
// Fields of c that the application has set take precedence. sagas may be nil.
func (s Shared) NewDoctor(c doctor.Config, mq rocketmq.Config, out outbox.Config, consumers handlers.Config, sagas *saga.Engine) (*doctor.Doctor, error) {
	if c.Databases == nil {
		c.Databases = []doctor.Database{{
			Pool: s.Pool, Schemas: []string{cmp.Or(s.Schema, rocketflow.DefaultSchema)}, ProducerGroup: out.Group, PoolSize: int(s.Pool.Config().MaxConns),
		}}
	}
	if c.Broker == nil {
		c.Broker = &doctor.Broker{NameServers: mq.NameServers, AccessKey: mq.AccessKey, SecretKey: mq.SecretKey, TLS: mq.TLS, Namespace: mq.Namespace, Unlisted: mq.Profile.RefusesListing()}
	}
	e := &c.Expect
	e.MaxTransaction = cmp.Or(e.MaxTransaction, out.MaxTransaction)
	e.HalfTimeout = cmp.Or(e.HalfTimeout, out.HalfTimeout)
	e.MaxBody = cmp.Or(e.MaxBody, out.MaxBody)
	e.OutboxRetention = cmp.Or(e.OutboxRetention, out.Retention)
	e.AuditRetention = cmp.Or(e.AuditRetention, out.AuditRetention)
	e.TimerHorizon = cmp.Or(e.TimerHorizon, mq.TimerHorizon)
	e.Lanes = cmp.Or(e.Lanes, consumers.Lanes)
	if out.MaxBacklog > 0 { // a negative one is unlimited
		e.MaxBacklog = cmp.Or(e.MaxBacklog, int64(out.MaxBacklog))
	}
	if c.Sagas == nil && sagas != nil {
		c.Sagas = func() (versions []doctor.SagaVersion) {
			for _, g := range sagas.Graphs() {
				versions = append(versions, doctor.SagaVersion{Name: g.Name, Version: g.Version})
			}
			return versions
		}
	}
	c.Logger = cmp.Or(c.Logger, s.Logger)
	if c.Clock == nil {
		c.Clock = s.Clock
	}
	d, err := doctor.New(c)
	if err == nil && s.Metrics != nil {
		s.Metrics.ObserveDoctor(d)
	}
	return d, err
}
