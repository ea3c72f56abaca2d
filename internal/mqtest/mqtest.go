// Package mqtest starts brokers of a test's own, which it may hurt: embedded ones, or real ones where the tests run on a
// real RocketMQ. Those that run for all tests are named by ROCKETMQ_NAMESRV.
package mqtest

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/internal/devstack"
)

// realVariable is set while tests run on a real RocketMQ (`.ci/test real`), and names it.
const realVariable = "ROCKETFLOW_REAL_NAMESRV"

// Broker is a broker with its name server.
type Broker interface {
	NameServer() string // its address
	Broker() string     // the broker's own address

	Kill()                             // as by SIGKILL; the name server goes on
	Restart(ctx context.Context) error // on the same port with what it had written
	Pause() error                      // connections stay and can be made, nothing is answered
	Continue() error                   // ends Pause

	Stop(ctx context.Context) error
}

// Start starts a broker that ends with the test.
func Start(t testing.TB) Broker { return start(t, "", "") }

// StartSecured is Start for a broker that asks for credentials and knows this one user, who may do anything.
func StartSecured(t testing.TB, accessKey, secretKey string) Broker {
	return start(t, accessKey, secretKey)
}

func start(t testing.TB, accessKey, secretKey string) Broker {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a broker")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute) // a real one may have to be fetched
	defer cancel()
	var (
		broker   Broker
		err      error
		real     devstack.RocketMQConfig
		embedded devstack.EmbeddedConfig
	)
	if accessKey != "" {
		real.Auth = &devstack.AuthConfig{Admin: devstack.User{Name: accessKey, Secret: secretKey}}
		embedded.Credentials = map[string]string{accessKey: secretKey}
	}
	if os.Getenv(realVariable) != "" {
		broker, err = devstack.StartRocketMQ(ctx, real)
	} else {
		broker, err = devstack.StartEmbedded(embedded)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Stop(context.Background()) })
	return broker
}

// NeedsReal skips a test of what the embedded broker doesn't have, unless the tests run on a real RocketMQ. It returns
// the name server.
func NeedsReal(t testing.TB) string {
	t.Helper()
	address := os.Getenv(realVariable)
	if address == "" {
		t.Skip("needs a real RocketMQ: `make test-real`")
	}
	return address
}
