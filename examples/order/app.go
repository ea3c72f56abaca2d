package order

import (
	"io"
	"log/slog"

	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow/examples/contracts"
	"github.com/rocketflow/rocketflow/examples/service"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/saga"
)

// Configure reads the service's settings.
func Configure(getenv func(string) string) (service.Config, error) {
	return service.ConfigFromEnv("order", "orders", getenv)
}

// Main runs the service as a process and returns its exit code.
func Main(args []string, stderr io.Writer) int { return service.Main(args, stderr, Configure, App) }

// App returns the service's modules.
func App(c service.Config) fx.Option {
	return fx.Options(
		rocketflowfx.Module,
		service.Module(c, Schema, OpenAPI),
		fx.Provide(
			func(log *slog.Logger) rocketflowfx.Config {
				config := c.Rocketflow(contracts.Topics())
				config.Logger = log
				config.Saga.TimeoutTopic = contracts.OrderTimeouts
				return config
			},
			func(engine *saga.Engine) (*saga.Saga[Order], error) { return saga.Register(engine, Flow()) },
			NewService,
		),
		fx.Invoke((*Service).Routes),
		service.Serve,
	)
}
