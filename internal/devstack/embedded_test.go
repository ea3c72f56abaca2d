package devstack_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/internal/devstack"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/test/testcert"
)

func TestStackWithTheEmbeddedBroker(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, time.Minute)
	stack, err := devstack.Start(ctx, devstack.Config{
		Postgres: devstack.PostgresConfig{NoFsync: true}, Embedded: &devstack.EmbeddedConfig{},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stack.Stop(context.Background()) })
	exec1(t, ctx, stack.DatabaseURL(), "SELECT 1")
	mq := stack.Embedded
	if err := updateTopic(ctx, mq.Broker(), "kept", remoting.Credentials{}); err != nil {
		t.Fatal(err)
	}

	mq.Kill()
	if updateTopic(ctx, mq.Broker(), "lost", remoting.Credentials{}) == nil {
		t.Error("the broker responds after Kill")
	}
	if err := mq.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if err := route(ctx, stack, "kept"); err != nil {
		t.Errorf("route of the topic after a restart: %v", err)
	}

	if err := mq.Pause(); err != nil {
		t.Fatal(err)
	}
	responded := make(chan error, 1)
	go func() { responded <- updateTopic(ctx, mq.Broker(), "later", remoting.Credentials{}) }()
	select {
	case err := <-responded:
		t.Errorf("a paused broker responded: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	if err := mq.Continue(); err != nil {
		t.Fatal(err)
	}
	if err := <-responded; err != nil {
		t.Errorf("after Continue: %v", err)
	}

	for range 2 {
		if err := stack.Stop(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(stack.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left (%v)", stack.Dir(), err)
	}
}

func TestEmbeddedBrokerOnATakenPort(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	for _, config := range []devstack.EmbeddedConfig{{NameServerPort: port}, {BrokerPort: port}} {
		if _, err := devstack.StartEmbedded(config); err == nil || !strings.Contains(err.Error(), "is taken") {
			t.Errorf("start on a taken port: %v", err)
		}
	}
}

// A RocketMQ that runs already may require TLS.
func TestRunningServersAreCheckedOverTLS(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, time.Minute)
	postgres, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{NoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { postgres.Stop(context.Background()) })
	authority := testcert.NewAuthority(t)
	mq, err := devstack.StartEmbedded(devstack.EmbeddedConfig{TLS: &tls.Config{
		Certificates: []tls.Certificate{authority.Issue(t, testcert.Leaf{Names: []string{"127.0.0.1"}}).TLS(t)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mq.Stop(context.Background()) })
	config := devstack.Config{DatabaseURL: postgres.URL(), NameServer: mq.NameServer()}
	if _, err := devstack.Start(ctx, config); err == nil || !strings.Contains(err.Error(), "takes TLS connections only") {
		t.Errorf("without TLS: %v", err)
	}
	config.TLS = &tls.Config{RootCAs: authority.Pool()}
	if _, err := devstack.Start(ctx, config); err != nil {
		t.Error(err)
	}
}
