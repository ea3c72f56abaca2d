package rocketflowfx_test

import (
	"context"
	"errors"
	"testing"

	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/saga"
)

// The engine starts before the router, in whichever order the application asks for them: while the engine refuses to start, the
// router takes no events. An engine that has started stops if the router doesn't start; goleak would find it.
func TestEngineStartsBeforeTheRouter(t *testing.T) {
	t.Parallel()
	pool, config := shop(t)
	ctx := t.Context()
	register := fx.Invoke(func(e *saga.Engine) error {
		d := saga.Define[struct{}]("delivery", 1).Initial("open").NoDeadline("open").Final("done")
		saga.On[Shipped](d, "open", "done", nil)
		_, err := saga.Register(e, d)
		return err
	})
	handle := fx.Invoke(func(r *handlers.Router) {
		handlers.On(r, "shop", func(context.Context, rocketflow.Tx, Overdue) error { return nil })
	})
	start := func(options ...fx.Option) error {
		app := fx.New(append([]fx.Option{fx.NopLogger, rocketflowfx.Module, fx.Supply(pool, config)}, options...)...)
		if err := app.Start(ctx); err != nil {
			return err
		}
		return app.Stop(ctx)
	}
	consumers := func() (n int) {
		t.Helper()
		if err := pool.QueryRow(ctx, "SELECT count(*) FROM consumer").Scan(&n); err != nil { // the router's start records them
			t.Fatal(err)
		}
		return n
	}

	if _, err := pool.Exec(ctx, "INSERT INTO saga (name, key, version, state, data, revision) VALUES ('delivery', 'p-1', 2, 'open', '{}', 1)"); err != nil {
		t.Fatal(err)
	}
	var unknown *saga.UnknownSagasError
	for _, options := range [][]fx.Option{{register}, {handle, register}, {register, handle}} {
		if err := start(options...); !errors.As(err, &unknown) {
			t.Errorf("start: %v, want an UnknownSagasError", err)
		}
		if n := consumers(); n != 0 {
			t.Fatalf("%d consumers were started before the engine", n)
		}
	}
	if _, err := pool.Exec(ctx, "UPDATE saga SET version = 1"); err != nil {
		t.Fatal(err)
	}
	var field *rocketflow.FieldError
	refused := fx.Invoke(func(r *handlers.Router) { r.Configure("nobody", handlers.ConsumerConfig{}) })
	if err := start(register, refused); !errors.As(err, &field) {
		t.Errorf("start: %v, want the router's FieldError", err)
	}
	if err := start(handle, register); err != nil || consumers() != 2 {
		t.Errorf("start: %v, %d consumers, want 2", err, consumers())
	}
}
