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

func TestPaidOrderIsConfirmedAndUnpaidOneClosed(t *testing.T) {
	t.Parallel()
	want := []string{
		"the paid order is confirmed", "the unpaid order is closed",
		"the paid order: confirmed", "the unpaid order: closed",
	}
	if got := servicetest.StartProgram(t).Wait(); !slices.Equal(got, want) {
		t.Errorf("output is %q, want %q", got, want)
	}
}
