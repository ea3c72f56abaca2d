// Package rocketflowfx provides the parts of rocketflow as modules for go.uber.org/fx. Applications without fx use package
// app, which builds the same parts by the same code.
//
//	fx.New(
//		rocketflowfx.Module,
//		rocketflowfx.Database, // or your own *pgxpool.Pool
//		fx.Provide(func() (rocketflowfx.Config, error) { return app.ConfigFromEnv("billing", os.Getenv) }),
//		fx.Invoke(func(router *handlers.Router) {
//			handlers.On(router, "billing", func(ctx context.Context, tx rocketflow.Tx, p OrderPlaced) error { … })
//		}),
//	).Run()
//
// # Modules
//
// Each module provides one type, starts and stops it with the application, and builds it only if something depends on it:
//
//	RocketMQ   *rocketmq.Client
//	Outbox     *outbox.Outbox, also as rocketflow.Transactor
//	Handlers   *handlers.Router, fenced by the scheduler if Timeout is there
//	Timeout    *timeout.Scheduler
//	Saga       *saga.Engine
//	Metrics    *metrics.Metrics, to which the others report, if there is a prometheus.Registerer
//	Health     *app.Health, readiness and report
//
// Module is all of these. Add to it what a service needs besides:
//
//	Database   *pgxpool.Pool, opened by Config.Database
//	Doctor     *doctor.Doctor, by Config.Doctor; it runs whether or not something depends on it
//	Reconcile  *operate.Reconciler, by Config.Reconcile; it runs whether or not something depends on it
//
// The application supplies a [Config] and, without Database, a *pgxpool.Pool.
//
// # Order
//
// Register handlers and sagas from an fx.Invoke, which fx runs before anything starts. Each part starts after those that it
// uses, and the engine of sagas before the router: no event is handled before the engine has verified its sagas. Parts stop in
// the reverse order: consumers take no more events, running work is finished, then connections close.
package rocketflowfx
