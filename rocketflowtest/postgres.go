package rocketflowtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/internal/devstack"
)

const startTimeout = 5 * time.Minute // the programs may have to be fetched

// shared is the server that the tests of this process use where none is named.
var shared struct {
	sync.Mutex
	users  int
	server *devstack.Postgres
}

// databaseURL names a server that runs until the test ends.
func databaseURL(t testing.TB) string {
	t.Helper()
	if url := os.Getenv("DATABASE_URL"); url != "" {
		return url
	}
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		server, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{NoFsync: true})
		if err != nil {
			t.Fatalf("DATABASE_URL is not set, so a PostgreSQL was to be started, but: %v", err)
		}
		shared.server = server
	}
	shared.users++
	t.Cleanup(func() {
		if err := leaveServer(); err != nil {
			t.Errorf("stop PostgreSQL: %v", err)
		}
	})
	return shared.server.URL()
}

// leaveServer stops the server when its last user leaves.
func leaveServer() error {
	shared.Lock()
	defer shared.Unlock()
	if shared.users--; shared.users > 0 {
		return nil
	}
	server := shared.server
	shared.server = nil
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := server.Stop(ctx); err != nil {
		return errors.Join(fmt.Errorf("server of %s", server.URL()), err)
	}
	return nil
}
