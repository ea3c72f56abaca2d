package rocketmqtest_test

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain looks for goroutines left behind. Those of the client that its Shutdown leaves are named; the server's must be
// gone.
func TestMain(m *testing.M) {
	const client = "github.com/apache/rocketmq-client-go/v2/"
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction(client+"primitive.WithRecover"),
		goleak.IgnoreAnyFunction(client+"consumer.(*pushConsumer).pullMessage"),
		goleak.IgnoreAnyFunction("github.com/patrickmn/go-cache.(*janitor).Run"),
	)
}
