package rocketmqtest_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/rocketflow/rocketflow/test/leaks"
)

// TestMain looks for goroutines left behind: the server's must be gone.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m, leaks.Known()...) }
