package metrics_test

import (
	"context"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/metrics"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/timeout"
)

// Everything that the package comment lists is there once it has happened, and nothing else.
func TestNames(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	m := metrics.New(registry)
	oops := errors.New("oops")

	o := outbox.Tee(m.Outbox()) // Tee fills in what is nil
	events := []rocketflow.Event{{Topic: "orders", Type: "order.placed"}}
	o.Recorded(events)
	o.Committed(events)
	o.RolledBack(events, true)
	o.Prepared(outbox.PreparedInfo{Took: time.Millisecond})
	o.Ended(outbox.EndedInfo{Err: oops})
	o.Relayed(outbox.RelayedInfo{Swept: true})
	o.RelayFull(events[0])
	o.Acked(outbox.AckedInfo{IDs: []uuid.UUID{uuid.Nil, uuid.Nil}})
	o.Checked(outbox.CheckedInfo{Decision: broker.Commit})
	o.Swept(outbox.SweptInfo{})
	o.Retained(outbox.RetainedInfo{Made: []string{"outbox_p20260101"}})
	o.Resent(outbox.ResentInfo{Sent: 1})

	h := handlers.Tee(m.Handlers())
	info := handlers.EventInfo{Consumer: "billing", Event: events[0]}
	h.Handled(handlers.HandledInfo{EventInfo: info, Took: time.Millisecond})
	h.Committed(handlers.BatchInfo{Consumer: "billing", Events: events})
	h.Duplicate(info)
	h.MissingRequested(handlers.MissingRequestedInfo{Consumer: "billing"})
	h.Panicked(handlers.PanickedInfo{EventInfo: info})
	h.Stalled(handlers.StalledInfo{Consumer: "billing"})

	m.Timeout().Fired(timeout.Info{Late: time.Millisecond})
	s := m.Saga()
	s.Moved(saga.TransitionInfo{Saga: "order", From: "pending", To: "closed", Deadline: true})
	s.Ignored(saga.IgnoredInfo{Saga: "order", Reason: saga.Finished})
	s.WaitExpired(saga.WaitInfo{Saga: "order"})
	r := m.RocketMQ()
	r.BrokerUp(rocketmq.BrokerInfo{Broker: "broker-a"})
	r.ConsumerRestarted(rocketmq.ConsumerInfo{})
	r.HandlerFailed(rocketmq.HandlerInfo{Group: "g"})
	m.ObserveBacklog(startedOutbox(t))

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
		t.Errorf("collected %q\nbut the package comment lists %q", got, want)
	}
}

func documented(t *testing.T) (names []string) {
	t.Helper()
	source, err := os.ReadFile("metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(source)) {
		if match := regexp.MustCompile(`^//\t(rocketflow_\w+)(?:, (_\w+))?`).FindStringSubmatch(line); match != nil {
			names = append(names, match[1])
			if match[2] != "" {
				names = append(names, strings.TrimSuffix(match[1], "_events")+strings.TrimPrefix(match[2], "_backlog"))
			}
		}
	}
	return names
}

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
