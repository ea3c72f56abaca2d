package saga_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// without is the definition stages in another version of the program: without the state paid, or with another version.
func without(version int) *saga.Definition[steps] {
	d := saga.Define[steps]("stages", version).Initial("awaiting_stock").NoDeadline("awaiting_stock").Final("done", "closed")
	saga.On[reserved](d, "awaiting_stock", "done", nil)
	saga.On[paid](d, "awaiting_stock", "closed", nil)
	return d
}

// An engine doesn't start while sagas run that its definitions can't go on with, and an event for one of them fails.
func TestStartRefusesUnknownVersionsAndStates(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	s := register(t, b, stages(nil))
	for _, key := range []string{"o1", "o2", "finished"} {
		beginSteps(t, b, s, key)
		b.must(t, reserved{key}, paid{key, 1})
	}
	b.must(t, shipped{"p", "finished"})
	beginSteps(t, b, s, "fine")
	var logged bytes.Buffer
	for version, want := range map[int]string{1: "saga stages: 2 in state paid of version 1", 2: "saga stages: 2 on version 1 (this program has version 2), state paid"} {
		cfg := b.cfg
		cfg.Router = router{}
		cfg.Logger = slog.New(slog.NewTextHandler(&logged, nil))
		e := b.engine(t, cfg)
		if _, err := saga.Register(e, without(version)); err != nil {
			t.Fatal(err)
		}
		err := e.Start(ctx)
		var unknown *saga.UnknownSagasError
		if !errors.As(err, &unknown) || !strings.Contains(err.Error(), want) {
			t.Errorf("version %d: got %v", version, err)
		}
		if err := e.Stop(ctx); err != nil {
			t.Error(err)
		}
		for name, h := range cfg.Router.(router) {
			if !strings.HasSuffix(name, "payment.received") {
				continue
			}
			event, err := wire.NewEvent(paid{"o1", 1})
			if err != nil {
				t.Fatal(err)
			}
			err = within(ctx, b.pool, func(tx *testdb.Tx) error { return h(ctx, tx, event) })
			var state *saga.UnknownStateError
			var other *saga.VersionError
			if !errors.As(err, &state) && !errors.As(err, &other) {
				t.Errorf("version %d: the event got %v", version, err)
			}
		}
	}
	// A saga without a definition in this process is no error: another process may have it.
	cfg := b.cfg
	cfg.Router, cfg.Logger = router{}, slog.New(slog.NewTextHandler(&logged, nil))
	e := b.engine(t, cfg)
	if err := e.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := e.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(logged.String(), "no definition") || !strings.Contains(logged.String(), "state=paid") {
		t.Errorf("logged %s", logged.String())
	}
}

// The deadline of a saga in an unknown state is an error, not a stale event.
func TestDeadlineOfAnUnknownStateFails(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	s := registerOrder(t, b)
	b.begin(t, s, "o1", order{})
	if _, err := b.pool.Exec(ctx, "UPDATE timeout SET due_at = now() - interval '1 s'; UPDATE saga SET state = 'gone'"); err != nil {
		t.Fatal(err)
	}
	e, err := b.deadline(ctx, "order/o1", "awaiting_payment")
	if err != nil {
		t.Fatal(err)
	}
	var unknown *saga.UnknownStateError
	if _, err := b.handle(e); !errors.As(err, &unknown) || unknown.State != "gone" {
		t.Errorf("got %v", err)
	}
}

// Each saga is a consumer of its own, so the error of one for an event has no effect on the others.
func TestSagasAreSeparateConsumers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	fails := saga.Define[order]("a.fails", 1).Initial("open").NoDeadline("open").Final("end")
	saga.On(fails, "open", "end", func(context.Context, rocketflow.Tx, *order, paid) error { return errBoom })
	stale := saga.Define[order]("b-stale", 1).Initial("open").NoDeadline("open").Final("end")
	saga.On(stale, "open", "end", func(context.Context, rocketflow.Tx, *order, paid) error { return rocketflow.ErrStale })
	works := saga.Define[order]("c", 1).Initial("open").NoDeadline("open").Final("end")
	saga.On[paid](works, "open", "end", nil)
	var all []*saga.Saga[order]
	for _, d := range []*saga.Definition[order]{fails, stale, works} {
		s := register(t, b, d)
		b.begin(t, s, "o1", order{})
		all = append(all, s)
	}
	if _, err := b.send(paid{"o1", 1}); !errors.Is(err, errBoom) {
		t.Errorf("got %v", err)
	}
	for n, want := range []string{"open", "open", "end"} {
		if i := get(t, b, all[n], "o1"); i.State != want {
			t.Errorf("%s is %s, want %s", i.Name, i.State, want)
		}
	}
	if got := all[0].Consumer(); got != "sagas-a_fails" {
		t.Errorf("consumer %s", got)
	}
	same := saga.Define[order]("a_fails", 1).Initial("open").NoDeadline("open").Final("end")
	saga.On[paid](same, "open", "end", nil)
	if _, err := saga.Register(b.Engine, same); err == nil || !strings.Contains(err.Error(), "its consumer sagas-a_fails is that of saga a.fails") {
		t.Errorf("got %v", err)
	}
}

// An engine doesn't start after Register refused a definition, also if the caller ignored the error: nobody would handle its
// events and keep its deadlines.
func TestStartReportsRefusedDefinitions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, without := range map[string]func(*saga.Config){
		"saga.Config.Timer":        func(c *saga.Config) { c.Timer = nil },
		"saga.Config.TimeoutTopic": func(c *saga.Config) { c.TimeoutTopic = "" },
	} {
		cfg := b.cfg
		cfg.Router = router{}
		without(&cfg)
		e := b.engine(t, cfg)
		_, _ = saga.Register(e, orderSaga())
		err := e.Start(t.Context())
		var field *rocketflow.FieldError
		if !errors.As(err, &field) || field.Field != name {
			t.Errorf("started with a definition that was refused for %s: %v", name, err)
		}
		if err := e.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if len(cfg.Router.(router)) > 0 {
			t.Errorf("%s: events of a refused definition are handled: %v", name, cfg.Router)
		}
	}
}
