package handlers

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/rocketflow/rocketflow/test/testbroker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, testbroker.Leaks()...) }
