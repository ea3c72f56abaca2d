package acceptance

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/timeout"
)

// ownerTopics are those of the services below.
var ownerTopics = []broker.Topic{{Name: "steps", Queues: 2}, {Name: "alarms", Kind: broker.Delay}}

// TestASchemaRefusesASecondService checks that a schema belongs to the service that first started on it. Another service is
// refused, whatever parts it has, and changes nothing: its retention would delete what the first needs, and its timeouts and
// sagas of the same names would be the first one's.
func TestASchemaRefusesASecondService(t *testing.T) {
	t.Parallel()
	w := rocketflowtest.New(t)
	orders := w.Start(rocketflowfx.Config{Service: "orders", Topics: ownerTopics}, fx.Invoke(func(r *handlers.Router, _ *timeout.Scheduler) {
		handlers.On(r, "ledger", func(context.Context, rocketflow.Tx, step) error { return nil })
	}))
	orders.Publish(step{Key: "k", N: 1}, step{N: 2})
	w.Settle()
	w.FastForward(3 * day)

	for part, invoke := range map[string]fx.Option{
		"outbox":   fx.Invoke(func(*outbox.Outbox) {}),
		"timeouts": fx.Invoke(func(*timeout.Scheduler) {}),
		"handlers": fx.Invoke(func(r *handlers.Router) {
			handlers.On(r, "reports", func(context.Context, rocketflow.Tx, step) error { return nil })
		}),
		"sagas": fx.Invoke(func(*saga.Engine) {}),
	} {
		config := rocketflowfx.Config{Service: "reports", Topics: ownerTopics, Schema: orders.Schema}
		config.Handlers.InboxRetention, config.Handlers.PositionRetention = time.Hour, time.Hour
		config.Saga.Retention = time.Hour
		app := fx.New(fx.NopLogger, rocketflowfx.Module, fx.Supply(config, orders.Pool), fx.Decorate(w.Configure), invoke)
		err := app.Start(bounded(t, 30*time.Second))
		var owned *rocketflow.SchemaOwnedError
		if !errors.As(err, &owned) || owned.Owner != "orders" || owned.Source != "reports" || owned.Schema != orders.Schema {
			t.Errorf("%s: got %v, want that the schema belongs to orders", part, err)
		}
		_ = app.Stop(context.Background())
	}
	for _, table := range []string{"position", "inbox"} {
		var rows int
		if err := orders.Pool.QueryRow(bounded(t, 10*time.Second), "SELECT count(*) FROM "+orders.Schema+"."+table).Scan(&rows); err != nil || rows != 1 {
			t.Errorf("%d rows of %s, want the 1 that was there (%v)", rows, table, err)
		}
	}
}

// TestServicesWithTheirOwnSchemasShareNoTimeouts runs two services in one database, each with its schema, whose timeouts and
// sagas have the same names and keys.
func TestServicesWithTheirOwnSchemasShareNoTimeouts(t *testing.T) {
	t.Parallel()
	w := rocketflowtest.New(t)
	type service struct {
		*rocketflowtest.Service
		timer *timeout.Scheduler
		sagas *saga.Saga[flowOrder]
	}
	services := map[string]*service{}
	for _, name := range []string{"orders", "billing"} {
		s := &service{}
		config := rocketflowfx.Config{Service: name, Topics: ownerTopics}
		config.Saga.TimeoutTopic = "alarms"
		s.Service = w.Start(config, fx.Populate(&s.timer), fx.Invoke(func(r *handlers.Router, e *saga.Engine, pool *pgxpool.Pool) (err error) {
			if _, err := pool.Exec(context.Background(), "CREATE TABLE fired (by text)"); err != nil {
				return err
			}
			handlers.On(r, "bells", func(ctx context.Context, tx rocketflow.Tx, b rung) error {
				if b.Key != name {
					return nil // the other's event
				}
				_, err := tx.Exec(ctx, "INSERT INTO fired VALUES ($1::text)", name)
				return err
			})
			d := saga.Define[flowOrder]("order", 1).Initial("open").
				Deadline("open", "late", func(o *flowOrder) time.Time { return o.By }, nil).Final("late")
			s.sagas, err = saga.Register(e, d)
			return err
		}))
		services[name] = s
	}
	due := w.Now().Add(time.Hour)
	for name, s := range services {
		s.Within(func(ctx context.Context, tx rocketflow.Tx) error {
			if err := s.sagas.Begin(ctx, tx, "o-1", flowOrder{By: due}); err != nil {
				return err
			}
			return s.timer.Arm(ctx, tx, "o-1", "payment", due, rung{name})
		})
	}
	w.FastForward(2 * time.Hour)
	for name, s := range services {
		var fired int
		if err := s.Pool.QueryRow(bounded(t, 10*time.Second), "SELECT count(*) FROM fired").Scan(&fired); err != nil || fired != 1 {
			t.Errorf("the timeout of %s fired %d times, want once (%v)", name, fired, err)
		}
		if i := s.Saga("order", "o-1"); i.State != "late" {
			t.Errorf("the saga of %s is %q, want late", name, i.State)
		}
	}
}
