package tracing_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/tracing"
)

type placed struct{ ID string }

func (p placed) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "orders", Type: "order.placed", Subject: p.ID}
}

type reserved struct{ ID string }

func (p reserved) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "payments", Type: "payment.reserved", Subject: p.ID}
}

type closed struct{ ID string }

func (p closed) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "orders", Type: "order.closed", Subject: p.ID}
}

type order struct{ ID string }

var topics = []broker.Topic{{Name: "orders"}, {Name: "payments"}, {Name: "deadlines", Kind: broker.Delay}}

// recorder has providers that keep spans and metrics in memory.
type recorder struct {
	spans  *tracetest.InMemoryExporter
	meters *sdkmetric.ManualReader
	tracer trace.Tracer
	config tracing.Config
}

func newRecorder(t *testing.T, parent bool) (*recorder, *tracing.Tracing) {
	t.Helper()
	r := &recorder{spans: tracetest.NewInMemoryExporter(), meters: sdkmetric.NewManualReader()}
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(r.spans))
	r.tracer = provider.Tracer("test")
	r.config = tracing.Config{TracerProvider: provider, MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(r.meters)), Parent: parent}
	tr, err := tracing.New(r.config)
	if err != nil {
		t.Fatal(err)
	}
	return r, tr
}

// find returns the spans of a name that have the attribute, in the order of their ends.
func (r *recorder) find(name, key, value string) (found []tracetest.SpanStub) {
	for _, s := range r.spans.GetSpans() {
		if s.Name == name && (key == "" || attributes(s)[key] == value) {
			found = append(found, s)
		}
	}
	return found
}

// one waits until there is exactly one such span, and returns it.
func (r *recorder) one(t *testing.T, name, key, value string) tracetest.SpanStub {
	t.Helper()
	poll.Until(t, "one span "+name+" with "+key+"="+value, func() bool { return len(r.find(name, key, value)) == 1 })
	return r.find(name, key, value)[0]
}

func attributes(s tracetest.SpanStub) map[string]string {
	all := map[string]string{}
	for _, a := range s.Attributes {
		all[string(a.Key)] = a.Value.Emit()
	}
	return all
}

func linkedTo(s, target tracetest.SpanStub) bool {
	for _, l := range s.Links {
		if l.SpanContext.SpanID() == target.SpanContext.SpanID() && l.SpanContext.TraceID() == target.SpanContext.TraceID() {
			return true
		}
	}
	return false
}

func childOf(s, parent tracetest.SpanStub) bool {
	return s.Parent.SpanID() == parent.SpanContext.SpanID() && s.SpanContext.TraceID() == parent.SpanContext.TraceID()
}

// services are an order service with a saga, whose deadline closes an unpaid order, and a payment service.
func services(t *testing.T, tr *tracing.Tracing, failures int) (*rocketflowtest.Env, *rocketflowtest.Service, rocketflow.Transactor) {
	t.Helper()
	env := rocketflowtest.New(t)
	var transactor rocketflow.Transactor
	flow := saga.Define[order]("checkout", 1).Initial("waiting").Final("closed").
		Deadline("waiting", "closed", func(*order) time.Time { return env.Now().Add(time.Hour) },
			func(ctx context.Context, tx rocketflow.Tx, o *order) error { return tx.Publish(ctx, closed(*o)) })
	saga.StartOn(flow, func(_ context.Context, _ rocketflow.Tx, p placed) (order, error) { return order(p), nil })
	saga.On[reserved](flow, "waiting", "waiting", nil)
	config := rocketflowfx.Config{Topics: topics, Tracing: tr}
	config.Service = "order"
	config.Saga.TimeoutTopic = "deadlines"
	orders := env.Start(config, fx.Populate(&transactor), fx.Invoke(func(e *saga.Engine) error { _, err := saga.Register(e, flow); return err }))
	config.Service = "payment"
	config.Saga.TimeoutTopic = ""
	var mu sync.Mutex
	env.Start(config, fx.Invoke(func(r *handlers.Router) {
		handlers.On(r, "payment", func(ctx context.Context, tx rocketflow.Tx, p placed) error {
			mu.Lock()
			defer mu.Unlock()
			if failures--; failures >= 0 {
				return errors.New("the bank is closed")
			}
			return tx.Publish(ctx, reserved(p))
		})
	}))
	return env, orders, transactor
}

// One order is followed from the request of a customer through two services, a saga and its deadline.
func TestAnOrderIsFollowedThroughTwoServices(t *testing.T) {
	t.Parallel()
	r, tr := newRecorder(t, true)
	env, _, transactor := services(t, tr, 0)

	ctx, request := r.tracer.Start(t.Context(), "POST /orders")
	err := transactor.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error { return tx.Publish(ctx, placed{"o-1"}) })
	request.End()
	if err != nil {
		t.Fatal(err)
	}
	env.FastForward(2 * time.Hour)

	const kind = "cloudevents.event_type"
	root := r.one(t, "POST /orders", "", "")
	create := r.one(t, "create orders", kind, "order.placed")
	send := r.one(t, "send orders", kind, "order.placed")
	pay := r.one(t, "process orders", "messaging.consumer.group.name", "payment-payment")
	createReserved := r.one(t, "create payments", kind, "payment.reserved")
	onReserved := r.one(t, "process payments", kind, "payment.reserved")
	armed := r.one(t, "create deadlines", "", "")
	fired := r.one(t, "process deadlines", "rocketflow.timeout.name", "waiting")
	begun := r.one(t, "transition checkout", "rocketflow.saga.from", "")
	paid := r.one(t, "transition checkout", "rocketflow.saga.cause", "payment.reserved")
	ended := r.one(t, "transition checkout", "rocketflow.saga.to", "closed")
	createClosed := r.one(t, "create orders", kind, "order.closed")
	for _, c := range []struct {
		what          string
		child, parent tracetest.SpanStub
	}{
		{"create in the request", create, root}, {"send in create", send, create}, {"payment's handler in create", pay, create},
		{"what the handler publishes in its span", createReserved, pay}, {"the saga's handler", onReserved, createReserved},
		{"the transition in the handler", paid, onReserved}, {"the deadline in the beginning", armed, begun},
		{"the deadline's handler in its create", fired, armed}, {"the last transition", ended, fired},
		{"what the last transition publishes", createClosed, ended},
	} {
		if !childOf(c.child, c.parent) {
			t.Errorf("%s: %s of trace %s has parent %s, want %s of trace %s", c.what, c.child.Name, c.child.SpanContext.TraceID(), c.child.Parent.SpanID(),
				c.parent.SpanContext.SpanID(), c.parent.SpanContext.TraceID())
		}
	}
	if !linkedTo(pay, create) || !linkedTo(send, create) {
		t.Errorf("process and send are linked to %v and %v, want the create span", pay.Links, send.Links)
	}
	var events []string
	for _, e := range send.Events {
		events = append(events, e.Name)
	}
	if path := attributes(send)["rocketflow.outbox.path"]; path != "half messages" || strings.Join(events, ", ") != "half message stored, transaction committed" {
		t.Errorf("the send span by path %q has events %q", path, events)
	}
	a := attributes(pay)
	for key, want := range map[string]string{
		"messaging.system": "rocketmq", "messaging.operation.type": "process", "messaging.destination.name": "orders",
		"messaging.rocketmq.message.tag": "order.placed", "cloudevents.event_subject": "o-1", "rocketflow.handler.attempt": "1", "rocketflow.handler.consumer": "payment",
	} {
		if a[key] != want {
			t.Errorf("%s is %q, want %q", key, a[key], want)
		}
	}
	if pay.SpanKind != trace.SpanKindConsumer || send.SpanKind != trace.SpanKindProducer || ended.SpanKind != trace.SpanKindInternal {
		t.Errorf("kinds are %v, %v, %v", pay.SpanKind, send.SpanKind, ended.SpanKind)
	}

	var metrics metricdata.ResourceMetrics
	if err := r.meters.Collect(t.Context(), &metrics); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, s := range metrics.ScopeMetrics {
		for _, m := range s.Metrics {
			names[m.Name] = true
		}
	}
	for _, name := range []string{
		"messaging.client.sent.messages", "messaging.client.operation.duration", "messaging.client.consumed.messages", "messaging.process.duration",
	} {
		if !names[name] {
			t.Errorf("there is no metric %s among %v", name, names)
		}
	}
}

// By default each handling is a trace of its own with a link, and a retry always is.
func TestRetriesAreTracesOfTheirOwn(t *testing.T) {
	t.Parallel()
	for _, parent := range []bool{false, true} {
		r, tr := newRecorder(t, parent)
		env, orders, _ := services(t, tr, 1)
		orders.Publish(placed{"o-1"})
		env.FastForward(30 * time.Minute)
		create := r.one(t, "create orders", "cloudevents.event_type", "order.placed")
		poll.Until(t, "both attempts ended", func() bool {
			return len(r.find("process orders", "messaging.consumer.group.name", "payment-payment")) == 2
		})
		for i, s := range r.find("process orders", "messaging.consumer.group.name", "payment-payment") {
			if want := parent && i == 0; childOf(s, create) != want || !linkedTo(s, create) {
				t.Errorf("Parent=%v, attempt %d: child %v, links %v", parent, i+1, childOf(s, create), s.Links)
			}
			if failed := s.Status.Description == "the bank is closed"; failed != (i == 0) {
				t.Errorf("attempt %d has status %v", i+1, s.Status)
			}
		}
	}
}

// What a process leaves behind when it dies is in the trace: the broker checks back, and the decision is a child of create.
func TestCheckBackIsPartOfTheTrace(t *testing.T) {
	t.Parallel()
	r, tr := newRecorder(t, true)
	env, orders, _ := services(t, tr, 0)
	remove := env.Broker().Control(rocketmqtest.Once("END_TRANSACTION", rocketmqtest.Drop()))
	defer remove()
	orders.Publish(placed{"o-1"})
	env.FastForward(time.Minute)
	create := r.one(t, "create orders", "cloudevents.event_type", "order.placed")
	poll.Until(t, "the broker has checked back", func() bool { return len(r.find("check_back orders", "", "")) > 0 })
	if check := r.find("check_back orders", "", "")[0]; !childOf(check, create) || attributes(check)["rocketflow.check.decision"] == "" {
		t.Errorf("the check-back has attributes %v and parent %v", attributes(check), check.Parent)
	}
}

// A line that is logged in a handler says which event and trace it belongs to, also through groups and attributes.
func TestLogLinesInAHandlerNameTheirEvent(t *testing.T) {
	t.Parallel()
	r, tr := newRecorder(t, true)
	var mu sync.Mutex
	var out bytes.Buffer
	log := slog.New(tracing.NewLogHandler(slog.NewJSONHandler(&out, nil))).With("team", "shop")
	env := rocketflowtest.New(t)
	orders := env.Start(rocketflowfx.Config{Service: "order", Topics: topics, Tracing: tr}, fx.Invoke(func(router *handlers.Router) {
		handlers.On(router, "order", func(ctx context.Context, _ rocketflow.Tx, _ placed) error {
			mu.Lock()
			defer mu.Unlock()
			log.InfoContext(ctx, "handled")
			return nil
		})
	}))
	log.InfoContext(t.Context(), "outside")
	orders.Publish(placed{"o-1"})
	env.Settle()
	process := r.one(t, "process orders", "", "")

	mu.Lock()
	defer mu.Unlock()
	var lines []map[string]any
	for line := range strings.Lines(out.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, m)
	}
	if len(lines) != 2 || lines[0]["event_id"] != nil || lines[0]["team"] != "shop" {
		t.Fatalf("lines are %v", lines)
	}
	got := lines[1]
	if got["consumer"] != "order" || got["subject"] != "o-1" || got["type"] != "order.placed" || got["attempt"] != 1.0 || got["event_id"] == nil || got["team"] != "shop" ||
		got["trace_id"] != process.SpanContext.TraceID().String() || got["span_id"] != process.SpanContext.SpanID().String() {
		t.Errorf("the line is %v", got)
	}
}
