package servicetest

import (
	"net/http"
	"testing"

	"go.uber.org/goleak"

	"github.com/rocketflow/rocketflow/test/leaks"
)

// Main runs the tests of a package and looks for goroutines that they left behind.
func Main(m *testing.M) {
	goleak.VerifyTestMain(closing{m}, leaks.Known()...)
}

// closing closes the connections of the tests' own requests.
type closing struct{ m *testing.M }

func (c closing) Run() int {
	defer http.DefaultClient.CloseIdleConnections()
	return c.m.Run()
}
