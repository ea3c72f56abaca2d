package timeout_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/rocketflow/rocketflow/test/leaks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, leaks.Known()...) }
