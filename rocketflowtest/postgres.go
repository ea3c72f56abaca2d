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

const startTimeout = 5 * time.Minute // the programs may have to be downloaded

// shared is the server that all tests of this process use where DATABASE_URL is not set.
var shared struct {
	sync.Mutex
	users  int
	server *devstack.Postgres
}

// databaseURL returns the URL of a server that runs until the test ends.
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
			t.Fatalf("DATABASE_URL is not set, and starting a PostgreSQL failed: %v", err)
		}
		shared.server = server
	}
	shared.users++
	t.Cleanup(func() {
		if err := releaseServer(); err != nil {
			t.Errorf("stop PostgreSQL: %v", err)
		}
	})
	return shared.server.URL()
}

// releaseServer ends one test's use of the shared server, and stops the server with the last use.
func releaseServer() error {
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
