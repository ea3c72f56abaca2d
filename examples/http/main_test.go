package main

import (
	"net/http"
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

// A deposit that is repeated counts once and is published once.
func TestDepositsCanBeRepeated(t *testing.T) {
	t.Parallel()
	p := servicetest.StartProgram(t)
	p.Ready()
	for range 3 {
		p.Want(http.StatusNoContent, "PUT", "/accounts/a-1/deposits/d-1?cents=500")
	}
	p.Want(http.StatusNoContent, "PUT", "/accounts/a-1/deposits/d-2?cents=20")
	p.Want(http.StatusBadRequest, "PUT", "/accounts/a-1/deposits/d-3?cents=-1")
	p.Want(http.StatusOK, "GET", "/livez")
	p.WaitFor("520", "SELECT sum(cents)::text FROM deposits")
	p.WaitFor("2", "SELECT count(*)::text FROM outbox")
	p.Stop()
}
