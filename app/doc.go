// Package app assembles and runs one service: it builds the outbox, the router of handlers, the scheduler of timeouts, the
// engine of sagas and the connection to RocketMQ, connects them with each other, and starts and stops them.
//
//	config, err := app.ConfigFromEnv("billing", os.Getenv)
//	…
//	a, err := app.New(config)
//	…
//	handlers.On(a.Router(), "billing", func(ctx context.Context, tx rocketflow.Tx, p OrderPlaced) error {
//		_, err := tx.Exec(ctx, "INSERT INTO invoice (order_id, cents) VALUES ($1, $2)", p.OrderID, p.Cents)
//		return err
//	})
//	a.Serve(mux)                              // optional: an HTTP server that starts last and stops first
//	err = a.Run(context.Background())         // until SIGINT or SIGTERM
//
// Use it unless the application uses go.uber.org/fx: package rocketflowfx provides the same parts to fx, built by the same
// code. A whole program is in examples/quickstart.
//
// # What it connects
//
//   - Handlers run in the outbox's transactions, so the events that they publish commit with the rows that they write.
//   - The scheduler's fence is the outermost middleware of all handlers: the event of a timeout takes effect once, and not
//     after the timeout was disarmed.
//   - When a consumer misses events, the router requests them from their publisher through the outbox.
//   - Sagas arm their deadlines with the scheduler, and apply waiting events in the outbox's transactions.
//   - All parts share the pool, the schema, the clock, the log and the metrics.
//
// # Start and stop
//
// Before it starts the parts, Start verifies that the database responds, that the tables are migrated (Config.Migrate:
// migrates them), that the topics exist (Config.CreateTopics: creates them), and that the schema belongs to this service. If
// the App can't start, the error is a *[StartError] that names the part, and nothing is left running.
//
// Stop first ends the HTTP server and the consumers, then sends what the outbox holds, then closes the connections. Run does
// both, and stops at SIGINT and SIGTERM within Config.StopTimeout.
//
// # Readiness
//
// [App.Ready] says whether the service can serve requests. It needs the database and not the broker: while the broker is
// away transactions commit and their events are owed, up to outbox.Config.MaxBacklog. [App.Report] says what is degraded,
// and [App.ReadyHandler] serves both.
package app
