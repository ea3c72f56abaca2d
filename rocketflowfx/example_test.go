package rocketflowfx_test

import (
	"context"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
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

// A service that hears of parcels. Whatever it needs besides, a timeout.Scheduler or a saga.Engine, its constructors ask
// for. A prometheus.Registerer among what it provides would have everything counted.
func Example() {
	fx.New(
		rocketflowfx.Module,
		fx.Supply(rocketflowfx.Config{
			Service:  "shop",
			RocketMQ: rocketmq.Config{NameServers: []string{os.Getenv("ROCKETMQ_NAMESRV")}},
		}),
		fx.Provide(func(lc fx.Lifecycle) (*pgxpool.Pool, error) {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
			if err == nil {
				lc.Append(fx.StopHook(pool.Close))
			}
			return pool, err
		}),
		fx.Invoke(func(router *handlers.Router) {
			handlers.On(router, "shop", func(ctx context.Context, tx rocketflow.Tx, p Shipped) error {
				_, err := tx.Exec(ctx, "UPDATE orders SET shipped = true WHERE parcel = $1", p.Parcel)
				return err
			})
		}),
	).Run()
}
