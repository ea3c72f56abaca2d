package doctor

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/rocketflow/rocketflow/test/leaks"
)

// TestMain looks for goroutines left behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m, leaks.Known()...) }
