package saga_test

import (
	"context"
	"errors"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/timeout"
)

var update = flag.Bool("update", false, "write golden files")

type topicless struct{}

func (topicless) EventMeta() rocketflow.Meta { return rocketflow.Meta{Type: "x"} }

type pointed struct{ id string }

func (p *pointed) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "t", Type: "x", Subject: p.id}
}

type unencodable struct{ C chan int }

func TestRegisterListsAllProblems(t *testing.T) {
	t.Parallel()
	soon := func(*order) time.Time { return time.Now() }
	type def = saga.Definition[order]
	for _, c := range []struct {
		name string
		make func() *def
		want []string // each problem contains one, in order
	}{
		{"good", orderSaga, nil},
		{"no name", func() *def { return saga.Define[order]("", 1).Initial("a").Final("a") }, []string{`name ""`}},
		{"bad name", func() *def { return saga.Define[order]("a b", 1).Initial("a").Final("a") }, []string{`name "a b"`}},
		{"version", func() *def { return saga.Define[order]("s", 0).Initial("a").Final("a") }, []string{"version 0"}},
		{"bad state", func() *def { return saga.Define[order]("s", 1).Initial("a/b").Final("a/b") }, []string{`state "a/b"`}},
		{"no initial", func() *def { return saga.Define[order]("s", 1).Final("a") }, []string{"no initial state"}},
		{"two initial", func() *def { return saga.Define[order]("s", 1).Initial("a").Initial("b").Final("a", "b") }, []string{"2 initial states: [a b]"}},
		{"no final", func() *def { return saga.Define[order]("s", 1).Initial("a").NoDeadline("a") }, []string{"no final state"}},
		{"unreachable", func() *def {
			d := saga.Define[order]("s", 1).Initial("a").NoDeadline("a", "b").Final("z", "y")
			saga.On[paid](d, "a", "z", nil)
			saga.On[paid](d, "b", "y", nil)
			return d
		}, []string{"state b: it can't be reached", "state y: it can't be reached"}},
		{"no path to a final state", func() *def {
			d := saga.Define[order]("s", 1).Initial("a").NoDeadline("a", "b").Final("z")
			saga.On[paid](d, "a", "z", nil)
			saga.On[shipped](d, "a", "b", nil)
			saga.On[paid](d, "b", "b", nil)
			return d
		}, []string{"state b: no final state can be reached from it"}},
		{"final is left", func() *def {
			d := saga.Define[order]("s", 1).Initial("a").NoDeadline("a").Final("z")
			saga.On[paid](d, "a", "z", nil)
			saga.On[paid](d, "z", "a", nil)
			return d
		}, []string{"transition z --payment.received--> a: it leaves a final state"}},
		{"final with deadline", func() *def {
			return saga.Define[order]("s", 1).Initial("a").Final("a").Deadline("a", "a", soon, nil)
		}, []string{"state a: it is final"}},
		{"undeclared", func() *def {
			d := saga.Define[order]("s", 1).Initial("a").Final("z").Deadline("a", "y", soon, nil)
			saga.On[paid](d, "a", "x", nil)
			return d
		}, []string{"deadline of state a: target y is not declared", "transition a --payment.received--> x: target x is not declared"}},
		{"neither deadline nor none", func() *def {
			d := saga.Define[order]("s", 1).Initial("a").Final("z")
			saga.On[paid](d, "a", "z", nil)
			return d
		}, []string{"state a: it has neither Deadline nor NoDeadline"}},
		{"transition from nowhere", func() *def {
			d := saga.Define[order]("s", 1).Initial("a").NoDeadline("a").Final("z")
			saga.On[paid](d, "a", "z", nil)
			saga.On[paid](d, "typo", "z", nil)
			return d
		}, []string{"state typo: it has neither"}},
		{"both", func() *def {
			return saga.Define[order]("s", 1).Initial("a").NoDeadline("a").Final("z").Deadline("a", "z", soon, nil)
		}, []string{"state a: both Deadline and NoDeadline"}},
		{"two deadlines", func() *def {
			return saga.Define[order]("s", 1).Initial("a").Final("z").Deadline("a", "z", soon, nil).Deadline("a", "a", soon, nil)
		}, []string{"state a: 2 deadlines"}},
		{"deadline without a time", func() *def {
			return saga.Define[order]("s", 1).Initial("a").Final("z").Deadline("a", "z", nil, nil)
		}, []string{"state a: its Deadline has no function for the time"}},
		{"duplicate", func() *def {
			d := saga.Define[order]("s", 1).Initial("a").NoDeadline("a").Final("z")
			saga.On[paid](d, "a", "z", nil)
			saga.On[paid](d, "a", "a", nil)
			return d
		}, []string{"transition a --payment.received--> a: a second one"}},
		{"payload", func() *def {
			d := saga.Define[order]("s", 1).Initial("a").Final("a")
			saga.On[topicless](d, "a", "a", nil)
			saga.On[*pointed](d, "a", "a", nil)
			saga.On[rocketflow.Payload](d, "a", "a", nil)
			return d
		}, []string{"topicless: EventMeta of its zero value must return", "*saga_test.pointed: EventMeta of its zero value panics", "<nil>: EventMeta of its zero value panics"}},
		{"key", func() *def {
			d := saga.Define[order]("s", 1).Initial("a").NoDeadline("a").Final("z")
			saga.On[paid](d, "a", "z", nil)
			saga.KeyBy(d, func(shipped) string { return "" })
			saga.KeyBy(d, func(paid) string { return "" })
			saga.KeyBy(d, func(paid) string { return "" })
			return d
		}, []string{"event payment.received: two keys", "event parcel.shipped: KeyBy without a transition"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e, err := saga.New(saga.Config{Pool: anyPool, Router: router{}, Transactor: transactor{}, Consumer: "c", Timer: anyTimer, TimeoutTopic: "t"})
			if err != nil {
				t.Fatal(err)
			}
			_, err = saga.Register(e, c.make())
			if c.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var bad *saga.DefinitionError
			if !errors.As(err, &bad) {
				t.Fatalf("got %v, want a DefinitionError", err)
			}
			if len(bad.Problems) != len(c.want) {
				t.Fatalf("got %q\nwant %q", bad.Problems, c.want)
			}
			for n, want := range c.want {
				if !strings.Contains(bad.Problems[n], want) {
					t.Errorf("got %q\nwant %q", bad.Problems[n], want)
				}
			}
		})
	}
	e, err := saga.New(saga.Config{Pool: anyPool, Router: router{}, Transactor: transactor{}, Consumer: "c"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := saga.Register(e, saga.Define[unencodable]("s", 1).Initial("a").Final("a")); err == nil || !strings.Contains(err.Error(), "data can't be encoded as JSON") {
		t.Errorf("got %v", err)
	}
}

func TestMermaid(t *testing.T) {
	t.Parallel()
	d := orderSaga()
	odd := saga.Define[order]("odd", 1).Initial("in-transit").NoDeadline("in-transit").Final("end")
	saga.On[shipped](odd, "in-transit", "end", nil)
	got := d.Mermaid() + "\n" + odd.Mermaid()
	const golden = "testdata/mermaid.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A definition is described with its beginnings, transitions and deadlines, and an engine describes all that it has.
func TestGraph(t *testing.T) {
	t.Parallel()
	placed := saga.Define[order]("a_placed", 3).Initial("open").NoDeadline("open").Final("done")
	saga.StartOn(placed, func(context.Context, rocketflow.Tx, paid) (order, error) { return order{}, nil })
	saga.On[shipped](placed, "open", "done", nil)
	orders := orderSaga()
	want := []saga.Graph{
		{
			Name: "a_placed", Version: 3, States: []saga.GraphState{{Name: "open"}, {Name: "done", Final: true}},
			Transitions: []saga.GraphTransition{{To: "open", Event: "payment.received", Topic: "payments"}, {From: "open", To: "done", Event: "parcel.shipped", Topic: "parcels"}},
		},
		{
			Name: "order", Version: 1, States: []saga.GraphState{{Name: "awaiting_payment"}, {Name: "paid"}, {Name: "shipped", Final: true}, {Name: "closed", Final: true}},
			Transitions: []saga.GraphTransition{
				{To: "awaiting_payment"}, {From: "awaiting_payment", To: "paid", Event: "payment.received", Topic: "payments"}, {From: "awaiting_payment", To: "closed", Deadline: true},
				{From: "paid", To: "paid", Event: "payment.received", Topic: "payments"}, {From: "paid", To: "shipped", Event: "parcel.shipped", Topic: "parcels"},
			},
		},
	}
	if got := []saga.Graph{placed.Graph(), orders.Graph()}; !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	e, err := saga.New(saga.Config{Pool: anyPool, Router: router{}, Transactor: transactor{}, Consumer: "c", Timer: anyTimer, TimeoutTopic: "t"})
	if err != nil {
		t.Fatal(err)
	}
	for _, register := range []func() error{
		func() error { _, err := saga.Register(e, orders); return err }, func() error { _, err := saga.Register(e, placed); return err },
	} {
		if err := register(); err != nil {
			t.Fatal(err)
		}
	}
	if got := e.Graphs(); !reflect.DeepEqual(got, want) {
		t.Errorf("the engine has\n%+v\nwant\n%+v", got, want)
	}
}

// Register uses neither.
var (
	anyPool  = new(pgxpool.Pool)
	anyTimer = new(timeout.Scheduler)
)
