package payment

import (
	"io"
	"log/slog"

	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow/examples/contracts"
	"github.com/rocketflow/rocketflow/examples/service"
	"github.com/rocketflow/rocketflow/rocketflowfx"
)

// Configure reads the service's settings.
func Configure(getenv func(string) string) (service.Config, error) {
	return service.ConfigFromEnv("payment", "payments", getenv)
}

// Main runs the service as a process and returns its exit code.
func Main(args []string, stderr io.Writer) int { return service.Main(args, stderr, Configure, App) }

// App returns the service's modules.
func App(c service.Config) fx.Option {
	return fx.Options(
		rocketflowfx.RocketMQ, rocketflowfx.Outbox, rocketflowfx.Handlers, rocketflowfx.Metrics, rocketflowfx.Health,
		service.Module(c, Schema, OpenAPI),
		fx.Provide(
			func(log *slog.Logger) rocketflowfx.Config {
				config := c.Rocketflow(contracts.Topics())
				config.Logger = log
				return config
			},
			NewService,
		),
		fx.Invoke((*Service).Subscribe, (*Service).Routes),
		service.Serve,
	)
}
