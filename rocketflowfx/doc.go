// Package rocketflowfx offers the parts of rocketflow as modules for go.uber.org/fx. The application supplies a
// [Config] and a *pgxpool.Pool; each module provides one type, starts and stops it with the application, and builds it
// only if something asks for it:
//
//	RocketMQ  *rocketmq.Client
//	Outbox    *outbox.Outbox, rocketflow.Transactor
//	Handlers  *handlers.Router, fenced by the scheduler if Timeout is there
//	Timeout   *timeout.Scheduler
//	Saga      *saga.Engine
//	Metrics   *metrics.Metrics, to which the others report, if there is a prometheus.Registerer
//
// Handlers and sagas are registered from an fx.Invoke, which fx runs before anything starts. Stopping goes the other way
// round: first no more events are taken, then what is on its way is finished, then connections close. The modules do
// nothing that an application could not do by hand.
package rocketflowfx
