package rocketflowfx_test

import (
	"testing"
	"time"

	"go.uber.org/fx"
	"go.uber.org/fx/fxtest"

	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/rocketflowfx"
)

// A service with the module Reconcile reconciles.
func TestModuleReconciles(t *testing.T) {
	t.Parallel()
	pool, config := shop(t)
	reports := make(chan error, 100)
	config.Reconcile = &operate.ReconcilerConfig{Schemas: []string{config.Schema}, Every: time.Second, Report: func(_ *operate.Reconciliation, err error) { reports <- err }}
	app := fxtest.New(t, rocketflowfx.Module, rocketflowfx.Reconcile, fx.Supply(pool, config))
	app.RequireStart()
	defer app.RequireStop()
	select {
	case err := <-reports:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("nothing was reported")
	}
}
