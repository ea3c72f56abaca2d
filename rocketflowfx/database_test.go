package rocketflowfx_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"
	"go.uber.org/fx/fxtest"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// From an empty schema: the pool is opened, the tables are migrated, the service is ready from its start to its stop, and the
// pool is closed.
func TestDatabaseMigratesAndHealthIsReady(t *testing.T) {
	t.Parallel()
	own, schema := testdb.Schema(t)
	config := shopIn(t, schema)
	config.Database, config.Migrate = own.Config(), true
	var (
		health *app.Health
		pool   *pgxpool.Pool
	)
	application := fxtest.New(t, rocketflowfx.Module, rocketflowfx.Database, fx.Supply(config), fx.Populate(&pool, &health))
	if err := health.Ready(t.Context()); err == nil {
		t.Error("ready before the start")
	}
	application.RequireStart()
	if err := health.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	poll.Succeeds(t, 10*time.Second, func() error { // a broker may take a moment to be listed
		if r := health.Report(t.Context()); r.Status != app.StatusOK {
			return fmt.Errorf("report is %+v", r)
		}
		return nil
	})
	application.RequireStop()
	if err := health.Ready(t.Context()); err == nil {
		t.Error("ready after the stop")
	}
	if err := pool.Ping(t.Context()); err == nil {
		t.Error("the pool is open after the stop")
	}
}

// Database without a pool and without its configuration is an error that names the field.
func TestDatabaseNeedsAConfig(t *testing.T) {
	t.Parallel()
	application := fx.New(rocketflowfx.Database, fx.NopLogger, fx.Supply(rocketflowfx.Config{}), fx.Invoke(func(*pgxpool.Pool) {}))
	var field *rocketflow.FieldError
	if err := application.Err(); !errors.As(err, &field) || field.Field != "app.Config.Database" {
		t.Errorf("error is %v", err)
	}
}
