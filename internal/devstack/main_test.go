package devstack_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/rocketflow/rocketflow/internal/devstack"
	"github.com/rocketflow/rocketflow/test/leaks"
)

// parentEnv makes the test binary a program that starts a Postgres and then waits to be killed.
const parentEnv = "DEVSTACK_TEST_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(parentEnv) != "" {
		p, err := devstack.StartPostgres(context.Background(), devstack.PostgresConfig{NoFsync: true})
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println(p.Dir())
		select {}
	}
	goleak.VerifyTestMain(m, leaks.Known()...)
}
