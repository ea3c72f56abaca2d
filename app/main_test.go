package app_test

import (
	"net/http"
	"testing"

	"go.uber.org/goleak"

	"github.com/rocketflow/rocketflow/test/leaks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(closing{m}, leaks.Known()...) }

// closing closes the connections of the tests' own requests.
type closing struct{ m *testing.M }

func (c closing) Run() int {
	defer http.DefaultClient.CloseIdleConnections()
	return c.m.Run()
}
