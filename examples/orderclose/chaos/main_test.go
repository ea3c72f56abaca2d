//go:build !race

package chaos_test

import (
	"testing"

	"github.com/rocketflow/rocketflow/examples/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }
