package rocketflowfx_test

import (
	"testing"

	"go.uber.org/goleak"
)

// What the RocketMQ client leaves behind when it is shut down: pulls that it doesn't wait for, statistics, connections.
const rocketmqClient = "github.com/apache/rocketmq-client-go/v2/"

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction(rocketmqClient+"primitive.WithRecover"),
		goleak.IgnoreAnyFunction(rocketmqClient+"consumer.(*pushConsumer).pullMessage"),
		goleak.IgnoreAnyFunction("github.com/patrickmn/go-cache.(*janitor).Run"),
		// A closed pool's last check of its connections ends half a second later.
		goleak.IgnoreAnyFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).triggerHealthCheck.func1"),
	)
}
