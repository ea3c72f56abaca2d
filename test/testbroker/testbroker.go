// Package testbroker starts a broker for a single test, which may kill, restart or pause it. It is an embedded broker, or a real
// RocketMQ if the tests run on one (`.ci/test real`). The broker that all tests share is named by ROCKETMQ_NAMESRV.
package testbroker

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/internal/devstack"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/testcert"
)

// realVariable is the environment variable with the name server of the real RocketMQ that the tests run on.
const realVariable = "ROCKETFLOW_REAL_NAMESRV"

// versionVariable is the environment variable with the version of that RocketMQ. `rocketflow dev` sets it.
const versionVariable = "ROCKETFLOW_ROCKETMQ_VERSION"

// Broker is a broker with its name server.
type Broker interface {
	// NameServer returns the address of the name server.
	NameServer() string
	// Broker returns the address of the broker.
	Broker() string

	// Kill kills the broker as SIGKILL does. The name server continues.
	Kill()
	// Restart starts the broker on the same port with what it had written.
	Restart(ctx context.Context) error
	// Pause freezes the broker: connections stay open and are accepted, and requests get no response.
	Pause() error
	// Continue ends Pause.
	Continue() error

	// Stop stops the broker and the name server.
	Stop(ctx context.Context) error
}

// Start starts a broker and stops it when the test ends. With -short the test is skipped.
func Start(t testing.TB) Broker {
	return start(t, devstack.RocketMQConfig{}, devstack.EmbeddedConfig{})
}

// StartSecured is Start for a broker that requires credentials. It has one user, who may do anything.
func StartSecured(t testing.TB, accessKey, secretKey string) Broker {
	return start(t,
		devstack.RocketMQConfig{Auth: &devstack.AuthConfig{Admin: rocketmqtest.User{Name: accessKey, Secret: secretKey}}},
		devstack.EmbeddedConfig{Credentials: map[string]string{accessKey: secretKey}})
}

// StartTLS is Start for a name server and a broker that take TLS connections only, from clients with a certificate of authority.
// Their own certificate is for 127.0.0.1 and rocketmq.example.
func StartTLS(t testing.TB, authority *testcert.Authority) Broker {
	c := authority.Issue(t, testcert.Leaf{Names: []string{"127.0.0.1", "rocketmq.example"}})
	return start(t,
		devstack.RocketMQConfig{TLS: &devstack.TLSConfig{Certificate: c.PEM, Key: c.KeyPEM, Authorities: authority.PEM, RequireClientCertificate: true}},
		devstack.EmbeddedConfig{TLS: &tls.Config{
			Certificates: []tls.Certificate{c.TLS(t)}, ClientCAs: authority.Pool(), ClientAuth: tls.RequireAndVerifyClientCert,
		}})
}

// StartRocketMQ starts a real RocketMQ of the version that the tests run on, and stops it when the test ends. The test must have called
// NeedsReal.
func StartRocketMQ(t testing.TB, config devstack.RocketMQConfig) *devstack.RocketMQ {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute) // it may have to be downloaded
	defer cancel()
	config.Version = cmp.Or(config.Version, Version())
	mq, err := devstack.StartRocketMQ(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mq.Stop(context.Background()) })
	return mq
}

func start(t testing.TB, real devstack.RocketMQConfig, embedded devstack.EmbeddedConfig) Broker {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a broker")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute) // a real one may have to be downloaded
	defer cancel()
	var (
		broker Broker
		err    error
	)
	if Real() {
		real.Version = Version()
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

// Patience returns how long a test should wait for a consumer group after one of its processes was killed. A real broker may
// list the dead consumer, with its queues, for almost a minute longer: see TestDeadMembersStayListed of rocketmqtest.
func Patience() time.Duration {
	if Real() {
		return 2*time.Minute + 30*time.Second
	}
	return time.Minute
}

// Real reports whether the tests run on a real RocketMQ.
func Real() bool { return os.Getenv(realVariable) != "" }

// Version returns the version of the real RocketMQ that the tests run on, and that they start; without one the default version.
func Version() string { return cmp.Or(os.Getenv(versionVariable), devstack.RocketMQVersion) }

// Is4 reports whether the tests run on a real RocketMQ 4, which has no timers, no attributes of topics, and other users.
func Is4() bool { return Real() && strings.HasPrefix(Version(), "4.") }

// Brokers returns the addresses of the brokers of a name server.
func Brokers(ctx context.Context, nameServer string) (addresses []string, err error) {
	response, err := request(ctx, nameServer, &remoting.Command{Code: remoting.ClusterInfo})
	if err != nil {
		return nil, err
	}
	var cluster remoting.Cluster
	if err := remoting.DecodeJSON(response.Body, &cluster); err != nil {
		return nil, err
	}
	for _, b := range cluster.Brokers {
		addresses = append(addresses, b.Master())
	}
	return addresses, nil
}

// Members returns the client ids that all brokers list as members of a group. An id that is listed several times is there
// several times.
func Members(ctx context.Context, nameServer, group string) (ids []string, err error) {
	brokers, err := Brokers(ctx, nameServer)
	if err != nil {
		return nil, err
	}
	for _, address := range brokers {
		response, err := request(ctx, address, &remoting.Command{Code: remoting.ConsumerList, Ext: map[string]string{"consumerGroup": group}})
		var refused *remoting.ResponseError
		if errors.As(err, &refused) && refused.Code == remoting.SystemError {
			continue // the group has no member there
		}
		if err != nil {
			return nil, err
		}
		var list struct {
			IDs []string `json:"consumerIdList"`
		}
		if err := remoting.DecodeJSON(response.Body, &list); err != nil {
			return nil, err
		}
		ids = append(ids, list.IDs...)
	}
	return ids, nil
}

// request sends one request on a connection of its own.
func request(ctx context.Context, address string, command *remoting.Command) (*remoting.Command, error) {
	conn, err := remoting.Dial(ctx, address, remoting.Credentials{}, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.Call(ctx, command)
}

// DialBroker connects to the only broker of a name server, until the test ends.
func DialBroker(t testing.TB, nameServer string) *remoting.Conn {
	t.Helper()
	brokers, err := Brokers(t.Context(), nameServer)
	if err != nil || len(brokers) != 1 {
		t.Fatalf("brokers: %v, %v; want one", brokers, err)
	}
	conn, err := remoting.Dial(t.Context(), brokers[0], remoting.Credentials{}, nil)
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
