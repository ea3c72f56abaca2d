package metrics_test

import (
	"context"
	"maps"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/metrics"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testbroker"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/test/testoperator"
)

// openBroker returns a client of an embedded broker that has the topic orders.
func openBroker(t *testing.T) *rocketmq.Client {
	t.Helper()
	client := testbroker.Open(t, rocketmq.Config{NameServers: []string{rocketmqtest.RunT(t).Addr()}, Service: "test", Transport: rocketmq.Own})
	if err := client.CreateTopics(t.Context(), broker.Topic{Name: "orders", Queues: 2}); err != nil {
		t.Fatal(err)
	}
	return client
}

// What a consumer has not read is what came after the last message that its group has settled. A group that has never read has no age,
// and a broker that can't be asked gives no value.
func TestUnreadMetrics(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pool, schema := testdb.Migrated(t)
	for _, statement := range []string{
		"INSERT INTO consumer (name, group_name) VALUES ('bills', 'billing-bills'), ('mails', 'billing-mails'), ('old', '')",
		"INSERT INTO consumer_topic (consumer, topic) VALUES ('bills', 'orders'), ('mails', 'orders'), ('old', 'orders')",
	} {
		if _, err := pool.Exec(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	client := openBroker(t)
	send := func(n int) {
		t.Helper()
		for range n {
			if _, err := client.Send(ctx, broker.Message{Topic: "orders", ShardingKey: "4711", Body: []byte("{}")}); err != nil {
				t.Fatal(err)
			}
		}
	}
	send(3)
	settled := make(chan struct{}, 3)
	consumer, err := client.Subscribe(ctx, broker.Subscription{Group: "billing-bills", Topics: []string{"orders"}}, func(context.Context, broker.Delivery) error {
		settled <- struct{}{}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		<-settled
	}
	if err := consumer.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	metrics.New(registry).ObserveUnread(testoperator.New(t, pool, schema), client)
	gather := func() map[string]float64 { t.Helper(); return gauges(t, registry) }
	want := map[string]float64{
		"rocketflow_handlers_unread_messages bills orders": 0, "rocketflow_handlers_unread_age_seconds bills orders": 0, "rocketflow_handlers_unread_messages mails orders": 3,
	}
	if got := gather(); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	send(2)
	poll.Until(t, "an age", func() bool { return gather()["rocketflow_handlers_unread_age_seconds bills orders"] > 0 })
	if got := gather(); got["rocketflow_handlers_unread_messages bills orders"] != 2 || got["rocketflow_handlers_unread_messages mails orders"] != 5 {
		t.Errorf("got %v", got)
	}
	if err := client.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if got := gather(); len(got) != 0 {
		t.Errorf("of a closed client: got %v", got)
	}
}

// readingOperator returns an operator of a schema with a consumer of topic orders.
func readingOperator(t *testing.T) *operate.Operator {
	t.Helper()
	pool, schema := testdb.Migrated(t)
	for _, statement := range []string{
		"INSERT INTO consumer (name, group_name) VALUES ('bills', 'billing-bills')", "INSERT INTO consumer_topic (consumer, topic) VALUES ('bills', 'orders')",
	} {
		if _, err := pool.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	return testoperator.New(t, pool, schema)
}
