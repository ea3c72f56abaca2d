package stage_test

import (
	"os"
	"testing"

	"github.com/rocketflow/rocketflow/examples/order"
	"github.com/rocketflow/rocketflow/examples/orderclose/stage"
	"github.com/rocketflow/rocketflow/examples/payment"
	"github.com/rocketflow/rocketflow/test/servicetest"
)

// serviceVariable makes the test's own binary one of the services.
const serviceVariable = "ROCKETFLOW_TEST_SERVICE"

func TestMain(m *testing.M) {
	switch os.Getenv(serviceVariable) {
	case "order":
		stage.StopWithParent()
		os.Exit(order.Main(nil, os.Stderr))
	case "payment":
		stage.StopWithParent()
		os.Exit(payment.Main(nil, os.Stderr))
	}
	servicetest.Main(m)
}
