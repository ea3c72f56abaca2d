package rocketflowfx

import (
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow/metrics"
)

// Metrics provides *metrics.Metrics if the application provides a prometheus.Registerer. The other modules then report to
// it, in addition to the Listeners of their Configs, and the backlog of the outbox is observed. Without a Registerer nothing
// is counted.
var Metrics = fx.Module("rocketflow.metrics", fx.Provide(metrics.New))
