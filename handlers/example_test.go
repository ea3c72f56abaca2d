package handlers_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
)

type OrderPlaced struct {
	OrderID string `json:"order_id"`
	Cents   int64  `json:"cents"`
}

func (p OrderPlaced) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "orders", Type: "order.placed", Subject: p.OrderID}
}

func ExampleOn() {
	var (
		pool   *pgxpool.Pool         // of the service's database
		outbox rocketflow.Transactor // an *outbox.Outbox
		client broker.Subscriber     // a *rocketmq.Client
	)
	router, err := handlers.New(handlers.Config{Source: "billing", Pool: pool, Transactor: outbox, Broker: client})
	if err != nil {
		fmt.Println(err)
		return
	}
	handlers.On(router, "billing", func(ctx context.Context, tx rocketflow.Tx, p OrderPlaced) error {
		if p.Cents == 0 {
			return handlers.Discard(nil) // nothing to bill
		}
		_, err := tx.Exec(ctx, "INSERT INTO invoice (order_id, cents) VALUES ($1, $2)", p.OrderID, p.Cents)
		return err
	})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := router.Start(ctx); err != nil {
		log.Print(err)
	}
	// Output: handlers.Config.Pool: missing
}

func ExampleDeadLetters() {
	redrive := func(ctx context.Context, pool *pgxpool.Pool) error {
		dead := handlers.NewDeadLetters(pool, "")
		list, err := dead.List(ctx, handlers.Filter{Consumer: "billing"})
		if err != nil {
			return err
		}
		for _, d := range list {
			fmt.Println(d.Event.Type, d.Event.Subject, d.LastError)
		}
		_, err = dead.Retry(ctx, handlers.Filter{Consumer: "billing"})
		return err
	}
	_ = redrive
}
