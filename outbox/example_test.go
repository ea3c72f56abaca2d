package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/outbox"
)

// OrderPlaced is an event.
type OrderPlaced struct {
	OrderID string `json:"order_id"`
}

func (p OrderPlaced) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "orders", Type: "order.placed", Subject: p.OrderID}
}

func Example() {
	ctx := context.Background()
	publish := func(pool *pgxpool.Pool, client outbox.Broker) error { // client is a *rocketmq.Client
		box, err := outbox.New(outbox.Config{Pool: pool, Broker: client, Source: "orders", Topics: []string{"orders"}})
		if err != nil {
			return err
		}
		if err := box.Start(ctx); err != nil {
			return err
		}
		defer func() { _ = box.Stop(ctx) }()
		return box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
			if _, err := tx.Exec(ctx, "INSERT INTO orders (id) VALUES ($1)", "o-1"); err != nil {
				return err
			}
			return tx.Publish(ctx, OrderPlaced{OrderID: "o-1"})
		})
	}
	_ = publish
}

func ExampleNew() {
	_, err := outbox.New(outbox.Config{Source: "orders"})
	var field *rocketflow.FieldError
	if errors.As(err, &field) {
		fmt.Println(field.Field)
	}
	// Output: outbox.Config.Pool
}

// The outcome of a commit is one of three.
func ExampleOutbox_Within() {
	place := func(ctx context.Context, box *outbox.Outbox, id string) error {
		err := box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
			if _, err := tx.Exec(ctx, "INSERT INTO orders (id) VALUES ($1)", id); err != nil {
				return err
			}
			tx.AfterCommit(func() { slog.Info("order placed", "order", id) })
			return tx.Publish(ctx, OrderPlaced{OrderID: id})
		})
		var full *rocketflow.BackpressureError
		switch {
		case errors.As(err, &full):
			return fmt.Errorf("not placed, as %d events are owed to the broker; try later: %w", full.Backlog, err)
		case errors.Is(err, rocketflow.ErrCommitUnknown):
			return fmt.Errorf("look up whether the order %s exists: %w", id, err)
		}
		return err // nil: committed, and the event will be sent
	}
	_ = place
}

// A transaction that the application has begun with pgx publishes as well.
func ExampleOutbox_Join() {
	place := func(ctx context.Context, box *outbox.Outbox, pool *pgxpool.Pool) error {
		return pgx.BeginFunc(ctx, pool, func(inner pgx.Tx) error {
			tx := box.Join(inner)
			if _, err := tx.Exec(ctx, "INSERT INTO orders (id) VALUES ($1)", "o-1"); err != nil {
				return err
			}
			if err := tx.Publish(ctx, OrderPlaced{OrderID: "o-1"}); err != nil {
				return err
			}
			return tx.Commit(ctx) // instead of inner's: then the event is sent at once, and not by the sweep
		})
	}
	_ = place
}

// So does a transaction of database/sql.
func ExampleOutbox_JoinSQL() {
	place := func(ctx context.Context, box *outbox.Outbox, db *sql.DB) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }()
		if _, err := tx.ExecContext(ctx, "INSERT INTO orders (id) VALUES ($1)", "o-1"); err != nil {
			return err
		}
		joined := box.JoinSQL(tx)
		if err := joined.Publish(ctx, OrderPlaced{OrderID: "o-1"}); err != nil {
			return err
		}
		return joined.Commit(ctx)
	}
	_ = place
}

func ExampleTee() {
	count := 0
	counts := &outbox.Listener{Committed: func(events []rocketflow.Event) { count += len(events) }}
	prints := &outbox.Listener{
		Committed: func(events []rocketflow.Event) { fmt.Println("committed", len(events)) },
		Swept:     func(i outbox.SweptInfo) { fmt.Println("swept", i.Sent, "in", i.Took) },
	}
	both := outbox.Tee(counts, prints)
	both.Committed(make([]rocketflow.Event, 2))
	both.Swept(outbox.SweptInfo{Sent: 1, Took: time.Millisecond})
	fmt.Println("count", count)
	// Output:
	// committed 2
	// swept 1 in 1ms
	// count 2
}

func ExamplePath() {
	for _, p := range []outbox.Path{outbox.Auto, outbox.HalfMessages, outbox.Relay} {
		fmt.Println(p)
	}
	// Output:
	// auto
	// half messages
	// relay
}
