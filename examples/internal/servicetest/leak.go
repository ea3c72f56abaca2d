package servicetest

import (
	"net/http"
	"testing"

	"go.uber.org/goleak"
)

// Main runs the tests of a package and looks for goroutines that they left behind.
func Main(m *testing.M) {
	const rocketmqClient = "github.com/apache/rocketmq-client-go/v2/"
	goleak.VerifyTestMain(closing{m},
		// What the RocketMQ client leaves behind when it is shut down: pulls that it doesn't wait for, statistics, connections.
		goleak.IgnoreAnyFunction(rocketmqClient+"primitive.WithRecover"),
		goleak.IgnoreAnyFunction(rocketmqClient+"consumer.(*pushConsumer).pullMessage"),
		goleak.IgnoreAnyFunction("github.com/patrickmn/go-cache.(*janitor).Run"),
		// A closed pool's last check of its connections ends half a second later.
		goleak.IgnoreAnyFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).triggerHealthCheck.func1"),
	)
}

// closing closes the connections of the tests' own requests.
type closing struct{ m *testing.M }

func (c closing) Run() int {
	defer http.DefaultClient.CloseIdleConnections()
	return c.m.Run()
}
