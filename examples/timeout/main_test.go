package main

import (
	"slices"
	"testing"

	"github.com/rocketflow/rocketflow/test/servicetest"
)

func TestMain(m *testing.M) {
	if servicetest.IsChild() {
		main()
		return
	}
	servicetest.Main(m)
}

// The idle session expires first, the one that was used later, the closed one never.
func TestSessionsExpire(t *testing.T) {
	t.Parallel()
	want := []string{"idle session expired, early: false", "used session expired, early: false"}
	if got := servicetest.StartProgram(t).Wait(); !slices.Equal(got, want) {
		t.Errorf("output is %q, want %q", got, want)
	}
}
