package rocketflowfx_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/rocketflow/rocketflow/internal/mqtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, mqtest.Leaks()...) }
