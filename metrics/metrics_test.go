package metrics_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/doctor"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/metrics"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/timeout"
)

// TestDocumentationListsAllMetrics lets everything happen once: exactly the metrics of the package documentation exist then.
func TestDocumentationListsAllMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	m := metrics.New(registry)
	oops := errors.New("oops")

	o := outbox.Tee(m.Outbox()) // Tee fills in what is nil
	events := []rocketflow.Event{{Topic: "orders", Type: "order.placed"}}
	o.Recorded(events)
	o.Committed(events)
	o.RolledBack(outbox.RolledBackInfo{Events: events, Unknown: true})
	o.Prepared(outbox.PreparedInfo{Took: time.Millisecond})
	o.Ended(outbox.EndedInfo{Err: oops})
	o.Relayed(outbox.RelayedInfo{Swept: true})
	o.RelayFull(events[0])
	o.Acked(outbox.AckedInfo{IDs: []uuid.UUID{uuid.Nil, uuid.Nil}})
	o.Checked(outbox.CheckedInfo{Decision: broker.Commit})
	o.Swept(outbox.SweptInfo{})
	o.Rejected(outbox.RejectedInfo{Topic: "orders", Events: 1})
	o.Retained(outbox.RetainedInfo{Made: []string{"outbox_p20260101"}})
	o.Resent(outbox.ResentInfo{Sent: 1})

	h := handlers.Tee(m.Handlers())
	info := handlers.EventInfo{Consumer: "billing", Event: events[0]}
	h.Handled(handlers.HandledInfo{EventInfo: info, Took: time.Millisecond})
	h.Committed(handlers.BatchInfo{Consumer: "billing", Events: events})
	h.Duplicate(info)
	h.MissingRequested(handlers.MissingRequestedInfo{Consumer: "billing"})
	h.Panicked(handlers.PanickedInfo{EventInfo: info})
	h.Unresponsive(handlers.UnresponsiveInfo{EventInfo: info})
	h.Paused(handlers.PausedInfo{Consumer: "billing", Pauses: []handlers.Pause{{Kind: handlers.PausedConsumer}}})
	h.Stalled(handlers.StalledInfo{Consumer: "billing"})

	m.Timeout().Fired(timeout.Info{Late: time.Millisecond})
	s := m.Saga()
	s.Moved(saga.TransitionInfo{Saga: "order", From: "pending", To: "closed", Deadline: true})
	s.Ignored(saga.IgnoredInfo{Saga: "order", Reason: saga.Finished})
	s.WaitExpired(saga.WaitInfo{Saga: "order"})
	m.Reconciliation()(&operate.Reconciliation{Consumers: []operate.ConsumerReconciliation{{Consumer: "billing", Missing: 1}}}, nil)
	r := m.RocketMQ()
	r.StoredLessSafely(rocketmq.StoredInfo{Topic: "orders", Reason: rocketmq.FlushTimeout})
	r.BrokerUp(rocketmq.BrokerInfo{Broker: "broker-a"})
	r.ConsumerRestarted(rocketmq.ConsumerInfo{})
	r.HandlerFailed(rocketmq.HandlerInfo{Group: "g"})
	m.ObserveBacklog(startedOutbox(t))
	m.ObserveWork(unfinishedWork(t))
	m.ObserveUnread(readingOperator(t), openBroker(t))
	m.ObserveDoctor(startedDoctor(t))

	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		got = append(got, f.GetName())
	}
	want := documented(t)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("collected %q\nbut the package documentation lists %q", got, want)
	}
}

// What a reconciliation could not compare is counted, and ends with the process that reconciles.
func TestReconciliationCountsWhatItCouldNotCompare(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	report := metrics.New(registry).Reconciliation()
	values := func() map[string]float64 {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == "rocketflow_reconciliation_uncompared" {
					found[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
				}
			}
		}
		return found
	}
	report(&operate.Reconciliation{
		Consumers: []operate.ConsumerReconciliation{{Unknown: 3}}, Partial: true,
		Unread: []operate.UnreadSchema{{Schema: "billing"}}, Unclaimed: []operate.UnclaimedType{{Type: "a", Events: 7}, {Type: "b", Events: 7}},
	}, nil)
	if got, want := values(), map[string]float64{"schemas": 1, "events": 3, "types": 2, "partial": 1}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	report(&operate.Reconciliation{}, nil)
	if got, want := values(), map[string]float64{"schemas": 0, "events": 0, "types": 0, "partial": 0}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if report(nil, nil); len(values()) > 0 {
		t.Errorf("another process reconciles: %v", values())
	}
}

// startedDoctor returns a doctor that has examined: nothing is configured, so that it knows nothing.
func startedDoctor(t *testing.T) *doctor.Doctor {
	t.Helper()
	moving := new(clock.Virtual)
	d, err := doctor.New(doctor.Config{Clock: moving})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Stop(context.Background()) })
	poll.Until(t, "a report", func() bool {
		moving.Advance(time.Minute)
		return d.Last() != nil
	})
	return d
}

// gauges returns the values of a registry's gauges by their names, followed by the values of their labels.
func gauges(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			key := f.GetName()
			for _, l := range m.GetLabel() {
				key += " " + l.GetValue()
			}
			got[key] = m.GetGauge().GetValue()
		}
	}
	return got
}

// Findings and what is not known are counted by check; a check without a finding has the value 0.
func TestDoctorMetrics(t *testing.T) {
	t.Parallel()
	mq := rocketmqtest.RunT(t, rocketmqtest.Config{CheckMax: 2})
	moving := new(clock.Virtual)
	d, err := doctor.New(doctor.Config{Clock: moving, Broker: &doctor.Broker{NameServers: []string{mq.Addr()}}, Only: []string{"broker-check-window", "broker-check-early", "postgres-primary"}})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	metrics.New(registry).ObserveDoctor(d)
	if families, err := registry.Gather(); err != nil || len(families) != 0 {
		t.Errorf("before the first examination: %v, %v", families, err)
	}
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Stop(context.Background()) }()
	poll.Until(t, "a report", func() bool {
		moving.Advance(time.Minute)
		return d.Last() != nil
	})
	got := gauges(t, registry)
	for key, want := range map[string]float64{
		"rocketflow_doctor_finding broker-check-window warning": 1, "rocketflow_doctor_finding broker-check-early warning": 0,
		"rocketflow_doctor_finding postgres-primary critical": 0, "rocketflow_doctor_unknown postgres-primary": 1, "rocketflow_doctor_unknown broker-check-early": 0,
	} {
		if n, ok := got[key]; !ok || n != want {
			t.Errorf("%s: %v, want %v in %v", key, n, want, got)
		}
	}
}

// documented returns the names that the package documentation lists.
func documented(t *testing.T) (names []string) {
	t.Helper()
	source, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`(?m)^//\t(rocketflow_\w+)`)
	for _, match := range name.FindAllStringSubmatch(string(source), -1) {
		names = append(names, match[1])
	}
	return names
}

// quietBroker takes everything and delivers nothing.
type quietBroker struct{ outbox.Broker }

func (quietBroker) Subscribe(context.Context, broker.Subscription, broker.Handler) (broker.Consumer, error) {
	return nil, broker.ErrTopicNotFound
}

func (quietBroker) OpenTransactionProducer(context.Context, string, broker.Checker) (broker.TransactionProducer, error) {
	return quietBroker{}, nil
}
func (quietBroker) Prepare(context.Context, broker.Message) (broker.Half, error) {
	return broker.Half{}, nil
}
func (quietBroker) Commit(context.Context, broker.Half) error   { return nil }
func (quietBroker) Rollback(context.Context, broker.Half) error { return nil }
func (quietBroker) Close(context.Context) error                 { return nil }

// startedOutbox returns an outbox that runs until the test ends.
func startedOutbox(t *testing.T) *outbox.Outbox {
	t.Helper()
	pool, schema := testdb.Migrated(t)
	o, err := outbox.New(outbox.Config{Pool: pool, Broker: quietBroker{}, Source: "s", Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Stop(context.Background()) })
	return o
}
