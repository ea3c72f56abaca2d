package rocketflowfx_test

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/fx"
	"go.uber.org/fx/fxtest"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/timeout"
)

type Overdue struct {
	Parcel string `json:"parcel"`
}

func (o Overdue) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "parcels", Type: "parcel.overdue"}
}

// A timeout is disarmed that was handed over to the broker. The router's fence drops its event, and that is counted because
// there is a Registerer, and reported to the listener of the Config.
func TestFenceIsInstalledAndCounted(t *testing.T) {
	t.Parallel()
	pool, config := shop(t)
	handedOver, stale := make(chan struct{}, 1), make(chan struct{}, 1)
	config.Timeout.Listener = &timeout.Listener{}
	config.Timeout.Listener.HandedOver = func(timeout.Info) { handedOver <- struct{}{} }
	config.Timeout.Listener.Stale = func(timeout.Info) { stale <- struct{}{} }
	registry := prometheus.NewRegistry()
	var tx rocketflow.Transactor
	var timer *timeout.Scheduler
	app := fxtest.New(t,
		rocketflowfx.Module,
		fx.Supply(pool, config),
		fx.Supply(fx.Annotate(registry, fx.As(new(prometheus.Registerer)))),
		fx.Invoke(func(router *handlers.Router) {
			handlers.On(router, "shop", func(_ context.Context, _ rocketflow.Tx, o Overdue) error {
				t.Errorf("the timeout of %s was disarmed, but had its effect", o.Parcel)
				return nil
			})
		}),
		fx.Populate(&tx, &timer),
	)
	app.RequireStart()
	defer app.RequireStop()

	within := func(fn func(context.Context, rocketflow.Tx) error) {
		t.Helper()
		if err := tx.Within(t.Context(), fn); err != nil {
			t.Fatal(err)
		}
	}
	within(func(ctx context.Context, tx rocketflow.Tx) error {
		return timer.Arm(ctx, tx, "p-1", "overdue", time.Now().Add(time.Second), Overdue{"p-1"})
	})
	await(t, handedOver, "the broker holds no timer")
	within(func(ctx context.Context, tx rocketflow.Tx) error {
		_, err := timer.Disarm(ctx, tx, "p-1", "overdue")
		return err
	})
	await(t, stale, "the fence did not see the event")

	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]bool{}
	for _, f := range families {
		counted[f.GetName()] = true
	}
	for _, name := range []string{"rocketflow_timeout_changes_total", "rocketflow_outbox_backlog_events", "rocketflow_broker_up"} {
		if !counted[name] {
			t.Errorf("%s is not counted: %v", name, counted)
		}
	}
}

// Tee calls each func of all its listeners.
func TestTeeCallsAllListeners(t *testing.T) {
	t.Parallel()
	testTee(t, outbox.Tee)
	testTee(t, handlers.Tee)
	testTee(t, timeout.Tee)
	testTee(t, saga.Tee)
	testTee(t, rocketmq.Tee)
}

func testTee[L any](t *testing.T, tee func(...*L) *L) {
	t.Helper()
	var calls int
	full := func() *L {
		l := new(L)
		for _, field := range reflect.ValueOf(l).Elem().Fields() {
			field.Set(reflect.MakeFunc(field.Type(), func([]reflect.Value) []reflect.Value { calls++; return nil }))
		}
		return l
	}
	for field, fn := range reflect.ValueOf(tee(nil, full(), new(L), full())).Elem().Fields() {
		calls = 0
		in := make([]reflect.Value, fn.Type().NumIn())
		for i := range in {
			in[i] = reflect.Zero(fn.Type().In(i))
		}
		fn.Call(in)
		if calls != 2 {
			t.Errorf("%T.%s: called %d of 2 listeners", *new(L), field.Name, calls)
		}
	}
}

func await(t *testing.T, happened <-chan struct{}, otherwise string) {
	t.Helper()
	select {
	case <-happened:
	case <-time.After(30 * time.Second):
		t.Fatal(otherwise)
	}
}
