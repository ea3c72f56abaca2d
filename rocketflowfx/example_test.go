package rocketflowfx_test

import (
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketmq"
)

type Shipped struct {
	Parcel string `json:"parcel"`
}

func (p Shipped) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "parcels", Type: "parcel.shipped", Subject: p.Parcel}
}

// A service that handles events of parcels, with settings from the environment. What it needs besides, a timeout.Scheduler
// or a saga.Engine, its constructors ask for. If it provides a prometheus.Registerer everything is counted.
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
		fx.Supply(pool, rocketflowfx.Config{
			Service:  "shop",
			RocketMQ: rocketmq.Config{NameServers: []string{"127.0.0.1:9876"}},
		}),
		fx.Invoke(func(rocketflow.Transactor) {}),
	)
	fmt.Println("complete:", err == nil)
	// Output: complete: true
}
