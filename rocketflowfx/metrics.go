package rocketflowfx

import (
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow/metrics"
)

// Metrics provides *metrics.Metrics if the application provides a prometheus.Registerer. The other modules then report to
// it besides the listeners of their Config, and the outbox' backlog is observed. Without a Registerer nothing is counted.
var Metrics = fx.Module("rocketflow.metrics", fx.Provide(metrics.New))
