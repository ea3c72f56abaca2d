package main

import (
	"os"
	"testing"

	"github.com/rocketflow/rocketflow/examples/internal/servicetest"
)

func TestMain(m *testing.M) {
	if servicetest.IsChild() {
		main()
	}
	os.Exit(m.Run())
}

func Test(t *testing.T) {
	t.Parallel()
	servicetest.RunMain(t)
}
