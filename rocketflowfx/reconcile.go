package rocketflowfx

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow/metrics"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// Reconcile provides *operate.Reconciler and runs it, by Config.Reconcile or its defaults. It is not part of Module: add it to the
// services that are to reconcile.
var Reconcile = fx.Module("rocketflow.reconcile", fx.Provide(newReconciler), fx.Invoke(func(*operate.Reconciler) {}))

type reconcileParams struct {
	fx.In
	Lifecycle fx.Lifecycle
	Config    Config
	Pool      *pgxpool.Pool
	Client    *rocketmq.Client
	Metrics   *metrics.Metrics `optional:"true"`
}

func newReconciler(p reconcileParams) (*operate.Reconciler, error) {
	var c operate.ReconcilerConfig
	if p.Config.Reconcile != nil {
		c = *p.Config.Reconcile
	}
	r, err := shared(p.Config, p.Pool, p.Client, p.Metrics).NewReconciler(c)
	if err != nil {
		return nil, err
	}
	p.Lifecycle.Append(migrated(p.Config, p.Pool, r))
	return r, nil
}
