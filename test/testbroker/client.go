package testbroker

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/rocketmq"
)

// NameServers returns the name servers of the broker that all tests share. If none are named, the test fails.
func NameServers(t testing.TB) []string {
	t.Helper()
	servers := os.Getenv("ROCKETMQ_NAMESRV")
	if servers == "" {
		t.Fatal("ROCKETMQ_NAMESRV is not set: run `make test`, or start servers with `make dev` and export the two variables that it prints")
	}
	return strings.Split(servers, ";")
}

// Open returns a client, which is closed when the test ends. The test fails if it can't be opened within half a minute, or closed.
func Open(t testing.TB, config rocketmq.Config) *rocketmq.Client {
	t.Helper()
	const limit = 30 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	client, err := rocketmq.Open(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := client.Close(ctx); err != nil {
			t.Errorf("close the client of the broker: %v", err)
		}
	})
	return client
}
