// Command quickstart is one service in one file: it takes orders by HTTP, makes an invoice of each, and closes those that
// nobody pays in time.
package main

import (
	"context"
	"log"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
)

type OrderPlaced struct{ OrderID string }

func (p OrderPlaced) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "orders", Type: "order.placed", Subject: p.OrderID}
}

type PaymentOverdue struct{ OrderID string }

func (p PaymentOverdue) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "order-timeouts", Type: "order.payment_overdue", Subject: p.OrderID}
}

const tables = `
	CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY, state text NOT NULL DEFAULT 'placed');
	CREATE TABLE IF NOT EXISTS invoices (order_id text PRIMARY KEY)`

func main() {
	config, err := app.ConfigFromEnv("shop", os.Getenv) // DATABASE_URL, ROCKETMQ_NAMESRV, LISTEN_ADDR, ...
	check(err)
	config.Migrate, config.CreateTopics = true, true
	config.Topics = []broker.Topic{{Name: "orders"}, {Name: "order-timeouts", Kind: broker.Delay}}
	config.Logger = slog.Default()
	a, err := app.New(config)
	check(err)
	_, err = a.Pool().Exec(context.Background(), tables)
	check(err)

	// A handler's statements, what it publishes and arms, and the record that it ran commit together.
	handlers.On(a.Router(), "invoices", func(ctx context.Context, tx rocketflow.Tx, p OrderPlaced) error {
		_, err := tx.Exec(ctx, "INSERT INTO invoices VALUES ($1)", p.OrderID)
		return err
	})
	handlers.On(a.Router(), "orders", func(ctx context.Context, tx rocketflow.Tx, p PaymentOverdue) error {
		_, err := tx.Exec(ctx, "UPDATE orders SET state = 'closed' WHERE id = $1 AND state = 'placed'", p.OrderID)
		return err
	})

	mux := http.NewServeMux()
	mux.Handle("GET /readyz", a.ReadyHandler())
	mux.HandleFunc("POST /orders/{id}", func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		err := a.Outbox().Within(r.Context(), func(ctx context.Context, tx rocketflow.Tx) error {
			if _, err := tx.Exec(ctx, "INSERT INTO orders (id) VALUES ($1)", id); err != nil {
				return err
			}
			due := time.Now().Add(5 * time.Second)
			if err := a.Timeouts().Arm(ctx, tx, id, "payment", due, PaymentOverdue{id}); err != nil {
				return err
			}
			return tx.Publish(ctx, OrderPlaced{id}) // goes out if and only if the transaction commits
		})
		respond(w, err)
	})
	mux.HandleFunc("POST /orders/{id}/payment", func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		respond(w, a.Outbox().Within(r.Context(), func(ctx context.Context, tx rocketflow.Tx) error {
			if _, err := tx.Exec(ctx, "UPDATE orders SET state = 'paid' WHERE id = $1 AND state = 'placed'", id); err != nil {
				return err
			}
			_, err := a.Timeouts().Disarm(ctx, tx, id, "payment") // it won't fire after the commit
			return err
		}))
	})
	a.Serve(mux)
	check(a.Run(context.Background())) // until SIGINT or SIGTERM
}

func respond(w http.ResponseWriter, err error) {
	if err != nil {
		slog.Error("request failed", "error", err)
		http.Error(w, "try again later", http.StatusServiceUnavailable)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
