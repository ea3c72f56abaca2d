package rocketmq_test

import (
	"flag"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// TestMain looks for goroutines left behind. Those of the client that its Shutdown leaves are named; ours must be gone.
func TestMain(m *testing.M) {
	const client = "github.com/apache/rocketmq-client-go/v2/"
	flag.Parse()
	benchmarks := flag.Lookup("test.bench").Value.String() != "" // they measure both transports
	if transport == rocketmq.Own && !benchmarks {
		goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/patrickmn/go-cache.(*janitor).Run")) // made by the import of the client
		return
	}
	goleak.VerifyTestMain(m,
		// Statistics of a consumer: sleep up to an hour before they look whether to end.
		goleak.IgnoreAnyFunction(client+"consumer.(*statsItemSet).init.func1"),
		goleak.IgnoreAnyFunction(client+"consumer.(*statsItemSet).init.func2"),
		goleak.IgnoreAnyFunction(client+"consumer.(*statsItemSet).init.func3"),
		goleak.IgnoreAnyFunction(client+"consumer.(*statsItemSet).init.func4"),
		goleak.IgnoreAnyFunction(client+"consumer.(*statsItemSet).init.func5"),
		goleak.IgnoreAnyFunction(client+"consumer.(*statsItemSet).init.func6"),
		// Clean-up of expired messages: sleeps for the ConsumeTimeout.
		goleak.IgnoreAnyFunction(client+"consumer.(*pushConsumer).Start.func1.2"),
		// Pulls: wait 30 s for the answer; a serial consumer polls for 5 s.
		goleak.IgnoreAnyFunction(client+"consumer.(*pushConsumer).pullMessage"),
		goleak.IgnoreAnyFunction(client+"consumer.(*pushConsumer).consumeMessageOrderly"),
		// Rebalances wait up to 3 s for a broker that hangs.
		goleak.IgnoreAnyFunction(client+"internal.(*rmqClient).RebalanceImmediately"),
		goleak.IgnoreAnyFunction(client+"internal.(*rmqClient).RebalanceIfNotPaused"),
		// Offsets, name servers, routes, heartbeats: sleep up to 10 s before their first turn.
		goleak.IgnoreAnyFunction(client+"internal.(*rmqClient).Start.func1.1"),
		goleak.IgnoreAnyFunction(client+"internal.(*rmqClient).Start.func1.2"),
		goleak.IgnoreAnyFunction(client+"internal.(*rmqClient).Start.func1.3"),
		goleak.IgnoreAnyFunction(client+"internal.(*rmqClient).Start.func1.4"),
		// A cache for traces, made by the import.
		goleak.IgnoreAnyFunction("github.com/patrickmn/go-cache.(*janitor).Run"),
		// Connections to name servers: stay until they have been idle for 120 s.
		goleak.IgnoreAnyFunction(client+"internal/remote.(*remotingClient).receiveResponse"),
	)
}

// transport is the one that the tests use which don't say: Own, or that of rocketmq-client-go if the environment variable
// ROCKETFLOW_TRANSPORT is "client". With Own all tests can run under the race detector, and nothing but an import's cache is left behind.
var transport = func() rocketmq.Transport {
	if os.Getenv("ROCKETFLOW_TRANSPORT") != "client" {
		return rocketmq.Own
	}
	return rocketmq.ClientGo
}()

// usesClient skips a test that uses rocketmq-client-go itself, which has data races and leaves goroutines behind, if those are looked for.
func usesClient(t *testing.T) {
	t.Helper()
	if transport == rocketmq.Own {
		t.Skip("uses rocketmq-client-go itself")
	}
}

func open(t testing.TB, change ...func(*rocketmq.Config)) *rocketmq.Client {
	t.Helper()
	config := rocketmq.Config{NameServers: testbroker.NameServers(t), Service: "conformance", SendTimeout: 20 * time.Second, Transport: transport}
	for _, f := range change {
		f(&config)
	}
	return testbroker.Open(t, config)
}
