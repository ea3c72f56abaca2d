package order_test

import (
	"testing"

	"github.com/rocketflow/rocketflow/test/servicetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }
