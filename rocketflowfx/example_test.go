package rocketflowfx_test

import (
	"context"
	"fmt"
	"net/http"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/metrics"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/timeout"
)

type Shipped struct {
	Parcel string `json:"parcel"`
}

func (p Shipped) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "parcels", Type: "parcel.shipped", Subject: p.Parcel}
}

// A service that handles events of parcels, with settings from the environment. A constructor that needs a
// timeout.Scheduler or a saga.Engine has it as a parameter. If the application provides a prometheus.Registerer, all parts
// are counted.
func Example() {
	fx.New(
		rocketflowfx.Module,
		rocketflowfx.Database,
		fx.Provide(func() (rocketflowfx.Config, error) { return app.ConfigFromEnv("shop", os.Getenv) }),
		fx.Invoke(func(router *handlers.Router) {
			handlers.On(router, "shop", func(ctx context.Context, tx rocketflow.Tx, p Shipped) error {
				_, err := tx.Exec(ctx, "UPDATE orders SET shipped = true WHERE parcel = $1", p.Parcel)
				return err
			})
		}),
	).Run()
}

// A service that only publishes takes two modules, and supplies its own pool and Config.
func Example_publisher() {
	pool, err := pgxpool.New(context.Background(), "postgres://shop@127.0.0.1:5432/shop")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	err = fx.ValidateApp(
		rocketflowfx.RocketMQ, rocketflowfx.Outbox,
		fx.Supply(pool, config),
		fx.Invoke(func(rocketflow.Transactor) {}),
	)
	fmt.Println("complete:", err == nil)
	// Output: complete: true
}

// config is the configuration of the following examples.
var config = rocketflowfx.Config{Service: "shop", RocketMQ: rocketmq.Config{NameServers: []string{"127.0.0.1:9876"}}}

// The scheduler and the engine of sagas are parameters of the functions that use them. Sagas are registered from an
// fx.Invoke, before anything starts.
func Example_sagasAndTimeouts() {
	pool, err := pgxpool.New(context.Background(), "postgres://shop@127.0.0.1:5432/shop")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	err = fx.ValidateApp(
		rocketflowfx.Module,
		fx.Supply(pool, config),
		fx.Invoke(func(engine *saga.Engine, timeouts *timeout.Scheduler) {
			// saga.Register(engine, definition)
		}),
	)
	fmt.Println("complete:", err == nil)
	// Output: complete: true
}

// With a prometheus.Registerer the module Metrics counts for all other modules.
func Example_metrics() {
	pool, err := pgxpool.New(context.Background(), "postgres://shop@127.0.0.1:5432/shop")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	err = fx.ValidateApp(
		rocketflowfx.Module,
		fx.Supply(pool, config),
		fx.Provide(func() prometheus.Registerer { return prometheus.NewRegistry() }),
		fx.Invoke(func(*metrics.Metrics, *handlers.Router) {}),
	)
	fmt.Println("complete:", err == nil)
	// Output: complete: true
}

// The module Health provides *app.Health, which responds to readiness probes. Invoke it last: it is ready once everything before
// it has started.
func ExampleHealth() {
	err := fx.ValidateApp(
		rocketflowfx.Module, rocketflowfx.Database,
		fx.Supply(config),
		fx.Invoke(func(mux *http.ServeMux, health *app.Health) {
			mux.Handle("GET /readyz", health.ReadyHandler())
		}),
		fx.Provide(http.NewServeMux),
	)
	fmt.Println("complete:", err == nil)
	// Output: complete: true
}
