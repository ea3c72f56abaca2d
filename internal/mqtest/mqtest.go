// Package mqtest starts brokers of a test's own, which it may hurt: embedded ones, or real ones where the tests run on a
// real RocketMQ. Those that run for all tests are named by ROCKETMQ_NAMESRV.
package mqtest

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/internal/devstack"
	"github.com/rocketflow/rocketflow/internal/remoting"
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
	if Real() {
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

// Patience is how long a group may need to come to rest after one of its processes was killed. A real broker may list
// the dead consumer, with its queues, for close to a minute more: see TestGhosts of rocketmqtest.
func Patience() time.Duration {
	if Real() {
		return 2*time.Minute + 30*time.Second
	}
	return time.Minute
}

// Real tells whether the tests run on a real RocketMQ.
func Real() bool { return os.Getenv(realVariable) != "" }

// Brokers returns the addresses of the brokers that a name server knows.
func Brokers(t testing.TB, nameServer string) (addresses []string) {
	t.Helper()
	names := Dial(t, nameServer)
	defer names.Close()
	var cluster remoting.Cluster
	answer, err := names.Call(t.Context(), &remoting.Command{Code: remoting.ClusterInfo})
	if err == nil {
		err = remoting.DecodeJSON(answer.Body, &cluster)
	}
	if err != nil {
		t.Fatalf("cluster of %s: %v", nameServer, err)
	}
	for _, b := range cluster.Brokers {
		addresses = append(addresses, b.Master())
	}
	return addresses
}

// Members returns the ids of the consumers that brokers list in a group, those that are listed twice as often.
func Members(t testing.TB, nameServer, group string) (ids []string) {
	t.Helper()
	for _, address := range Brokers(t, nameServer) {
		conn := Dial(t, address)
		answer, err := conn.Call(t.Context(), &remoting.Command{Code: remoting.ConsumerList, Ext: map[string]string{"consumerGroup": group}})
		conn.Close()
		if err != nil {
			continue // the group has no member
		}
		var list struct {
			IDs []string `json:"consumerIdList"`
		}
		if err := remoting.DecodeJSON(answer.Body, &list); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, list.IDs...)
	}
	return ids
}

// Dial connects to a name server or broker until the test ends.
func Dial(t testing.TB, address string) *remoting.Conn {
	t.Helper()
	conn, err := remoting.Dial(t.Context(), address, remoting.Credentials{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
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
