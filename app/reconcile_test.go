package app_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/operate"
)

// A service that is configured to reconcile reports what its consumers have handled.
func TestServiceReconciles(t *testing.T) {
	t.Parallel()
	c := shop(t)
	reports := make(chan *operate.Reconciliation, 100)
	c.Reconcile = &operate.ReconcilerConfig{
		Reconcile: operate.ReconcileConfig{Grace: 10 * time.Second}, Schemas: []string{c.Schema}, Every: time.Second,
		Report: func(x *operate.Reconciliation, err error) {
			if err != nil {
				t.Error(err)
			} else {
				reports <- x
			}
		},
	}
	a, err := app.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, a)
	handlers.On(a.Router(), "billing", func(context.Context, rocketflow.Tx, Placed) error { return nil })
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := a.Outbox().Within(t.Context(), func(ctx context.Context, tx rocketflow.Tx) error { return tx.Publish(ctx, Placed{"4711"}) }); err != nil {
		t.Fatal(err)
	}
	for limit := time.After(time.Minute); ; {
		select {
		case x := <-reports:
			if published, handled, _, missing, _ := x.Totals(); published == 1 && handled == 1 && missing == 0 {
				return
			}
		case <-limit:
			t.Fatal("the event was not reported as handled")
		}
	}
}

// A wrong setting is an error of New.
func TestWrongReconcilerIsRefused(t *testing.T) {
	t.Parallel()
	c := shop(t)
	c.Reconcile = &operate.ReconcilerConfig{Every: time.Millisecond}
	_, err := app.New(c)
	var field *rocketflow.FieldError
	var start *app.StartError
	if !errors.As(err, &field) || field.Field != "operate.ReconcilerConfig.Every" || !errors.As(err, &start) || start.Part != app.PartReconciler {
		t.Errorf("got %v", err)
	}
}
