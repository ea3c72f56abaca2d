package rocketflowfx

import "go.uber.org/fx"

// Module is all modules but Database, Doctor and Reconcile. The scheduler is then built with every router, for its fence.
var Module = fx.Options(RocketMQ, Outbox, Handlers, Timeout, Saga, Metrics, Health)
