package rocketflowfx_test

import (
	"testing"

	"go.uber.org/fx"
	"go.uber.org/fx/fxtest"

	"github.com/rocketflow/rocketflow/doctor"
	"github.com/rocketflow/rocketflow/rocketflowfx"
)

// The module Doctor examines the application's own schema and broker.
func TestDoctor(t *testing.T) {
	t.Parallel()
	pool, config := shop(t)
	config.Doctor = &doctor.Config{Only: []string{"postgres-migrated", "broker-transactions"}}
	var d *doctor.Doctor
	app := fxtest.New(t, rocketflowfx.Module, rocketflowfx.Doctor, fx.Supply(pool, config), fx.Populate(&d))
	app.RequireStart()
	defer app.RequireStop()
	r := d.Examine(t.Context())
	if len(r.Results) != 2 || len(r.Findings())+len(r.Unknown()) != 0 {
		t.Errorf("got %+v", r.Results)
	}
}
