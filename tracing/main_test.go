package tracing_test

import (
	"os"
	"testing"

	"github.com/rocketflow/rocketflow/rocketflowtest"
)

func TestMain(m *testing.M) {
	rocketflowtest.SuppressClientRaces()
	os.Exit(m.Run())
}
