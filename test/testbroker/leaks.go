package testbroker

import "go.uber.org/goleak"

// Leaks returns options for goleak that ignore the goroutines which the RocketMQ client and pgx leave behind.
func Leaks() []goleak.Option {
	const client = "github.com/apache/rocketmq-client-go/v2/"
	return []goleak.Option{
		// Statistics, heartbeats, connections: asleep, or until they have been idle for long.
		goleak.IgnoreAnyFunction(client + "primitive.WithRecover"),
		// Pulls, and a look at who else is in the group: the client waits for neither.
		goleak.IgnoreAnyFunction(client + "consumer.(*pushConsumer).pullMessage"),
		goleak.IgnoreAnyFunction(client + "internal.(*rmqClient).RebalanceImmediately"),
		// A cache for traces, made by the import.
		goleak.IgnoreAnyFunction("github.com/patrickmn/go-cache.(*janitor).Run"),
		// A closed pool's last check of its connections ends half a second later.
		goleak.IgnoreAnyFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).triggerHealthCheck.func1"),
	}
}
