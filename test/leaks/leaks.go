// Package leaks names the goroutines that dependencies leave behind after a shutdown. It imports none of them: packages whose tests
// need no broker stay free of the RocketMQ client, and are watched by the race detector.
package leaks

import "go.uber.org/goleak"

// Known returns options for goleak that ignore goroutines which the RocketMQ client and pgx leave behind after a shutdown.
func Known() []goleak.Option {
	const client = "github.com/apache/rocketmq-client-go/v2/"
	return []goleak.Option{
		// Statistics, heartbeats, connections: they sleep, or end after a long idle time.
		goleak.IgnoreAnyFunction(client + "primitive.WithRecover"),
		// Pulls, and the rebalance: the client's shutdown waits for neither.
		goleak.IgnoreAnyFunction(client + "consumer.(*pushConsumer).pullMessage"),
		goleak.IgnoreAnyFunction(client + "internal.(*rmqClient).RebalanceImmediately"),
		// A cache of traces that is created by the import of the client.
		goleak.IgnoreAnyFunction("github.com/patrickmn/go-cache.(*janitor).Run"),
		// The last health check of a closed pool ends half a second later.
		goleak.IgnoreAnyFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).triggerHealthCheck.func1"),
	}
}
