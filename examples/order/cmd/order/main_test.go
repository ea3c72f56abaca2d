package main

import (
	"testing"

	"github.com/rocketflow/rocketflow/test/servicetest"
)

func TestMain(m *testing.M) {
	if servicetest.IsChild() {
		main()
	}
	servicetest.Main(m)
}

func Test(t *testing.T) {
	t.Parallel()
	servicetest.RunMain(t)
}
