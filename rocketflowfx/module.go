package rocketflowfx

import "go.uber.org/fx"

// Module is all of them.
var Module = fx.Options(RocketMQ, Outbox, Handlers, Timeout, Saga)
