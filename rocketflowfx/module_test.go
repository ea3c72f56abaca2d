package rocketflowfx_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"
	"go.uber.org/fx/fxtest"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/testbroker"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/timeout"
)

// shop returns the configuration of a service that shares nothing with other tests.
func shop(t *testing.T) (*pgxpool.Pool, rocketflowfx.Config) {
	t.Helper()
	pool, schema := testdb.Partitioned(t)
	return pool, shopIn(t, schema)
}

func shopIn(t *testing.T, schema string) rocketflowfx.Config {
	t.Helper()
	return rocketflowfx.Config{
		Service:      "shop",
		Schema:       schema,
		Topics:       []broker.Topic{{Name: "parcels", Queues: 2}},
		CreateTopics: true,
		RocketMQ: rocketmq.Config{
			NameServers: testbroker.NameServers(t),
			Namespace:   "test_" + strings.ReplaceAll(uuid.NewString(), "-", "")[:12],
		},
	}
}

// All parts start, handle an event, and stop.
func TestModuleHandlesAnEvent(t *testing.T) {
	t.Parallel()
	pool, config := shop(t)
	handled := make(chan string, 1)
	var transactor rocketflow.Transactor
	app := fxtest.New(t,
		rocketflowfx.Module,
		fx.Supply(pool, config),
		fx.Invoke(func(router *handlers.Router, _ *outbox.Outbox, _ *timeout.Scheduler, _ *saga.Engine) {
			handlers.On(router, "shop", func(_ context.Context, tx rocketflow.Tx, p Shipped) error {
				tx.AfterCommit(func() { handled <- p.Parcel })
				return nil
			})
		}),
		fx.Populate(&transactor),
	)
	app.RequireStart()
	defer app.RequireStop()
	err := transactor.Within(t.Context(), func(ctx context.Context, tx rocketflow.Tx) error {
		return tx.Publish(ctx, Shipped{Parcel: "p-1"})
	})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case parcel := <-handled:
		if parcel != "p-1" {
			t.Errorf("handled parcel %q", parcel)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the event did not come")
	}
}

// Without CreateTopics a missing topic is an error at the start that names it.
func TestMissingTopicIsAnError(t *testing.T) {
	t.Parallel()
	pool, config := shop(t)
	config.Topics, config.CreateTopics = []broker.Topic{{Name: "missing"}}, false
	app := fx.New(
		rocketflowfx.Module, fx.NopLogger,
		fx.Supply(pool, config),
		fx.Invoke(func(*outbox.Outbox) {}),
	)
	if err := app.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("error is %v, want one that names the topic", err)
	}
	if err := app.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}
