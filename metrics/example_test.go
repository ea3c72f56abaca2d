package metrics_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/metrics"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/timeout"
)

// printCounters writes the counters of a registry.
func printCounters(registry *prometheus.Registry) {
	families, err := registry.Gather()
	if err != nil {
		fmt.Println(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if counter := metric.GetCounter(); counter.GetValue() > 0 {
				fmt.Print(family.GetName())
				for _, label := range metric.GetLabel() {
					fmt.Printf(" %s=%s", label.GetName(), label.GetValue())
				}
				fmt.Println("", counter.GetValue())
			}
		}
	}
}

// The listener of the outbox belongs into outbox.Config. Here the calls that the outbox makes are made by hand.
func ExampleMetrics_Outbox() {
	registry := prometheus.NewRegistry()
	m := metrics.New(registry)
	config := outbox.Config{Source: "orders", Listener: m.Outbox()} // and Pool and Broker

	events := []rocketflow.Event{{Topic: "orders", Type: "order.placed"}}
	config.Listener.Recorded(events)
	config.Listener.Committed(events)
	config.Listener.Checked(outbox.CheckedInfo{Decision: broker.Commit})
	printCounters(registry)
	// Output:
	// rocketflow_outbox_checkbacks_total decision=commit 1
	// rocketflow_outbox_events_recorded_total topic=orders type=order.placed 1
	// rocketflow_outbox_transactions_total outcome=committed 1
}

// A listener of your own goes beside the one that counts.
func ExampleMetrics_Handlers() {
	registry := prometheus.NewRegistry()
	m := metrics.New(registry)
	own := &handlers.Listener{
		Dead: func(i handlers.FailureInfo) { fmt.Println("page somebody:", i.Event.Type) },
	}
	config := handlers.Config{Source: "billing", Listener: handlers.Tee(m.Handlers(), own)}

	info := handlers.EventInfo{Consumer: "invoices", Event: rocketflow.Event{Type: "order.placed"}}
	config.Listener.Handled(handlers.HandledInfo{EventInfo: info, Took: time.Millisecond})
	config.Listener.Dead(handlers.FailureInfo{EventInfo: info})
	printCounters(registry)
	// Output:
	// page somebody: order.placed
	// rocketflow_handlers_events_total consumer=invoices outcome=dead_letter 1
	// rocketflow_handlers_events_total consumer=invoices outcome=handled 1
}

// New takes the registry that your program exposes.
func ExampleNew() {
	registry := prometheus.NewRegistry()
	m := metrics.New(registry)
	listener := m.RocketMQ() // for rocketmq.Config
	listener.ConsumerRestarted(rocketmq.ConsumerInfo{})
	printCounters(registry)
	// Output:
	// rocketflow_broker_consumer_restarts_total 1
}

// All parts of a service share one Metrics, and a program exposes its registry.
func Example() {
	registry := prometheus.NewRegistry()
	m := metrics.New(registry)
	published := outbox.Config{Source: "orders", Listener: m.Outbox()}
	handled := handlers.Config{Source: "orders", Listener: m.Handlers()}
	armed := timeout.Config{Source: "orders", Listener: m.Timeout()}
	fmt.Println(published.Listener != nil, handled.Listener != nil, armed.Listener != nil)

	server := http.NewServeMux()
	server.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	response := httptest.NewRecorder()
	server.ServeHTTP(response, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	fmt.Println(response.Code, strings.Contains(response.Body.String(), "rocketflow_outbox_breaker_open 0"))
	// Output:
	// true true true
	// 200 true
}
