package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/test/poll"
)

// envPromtool names the program promtool. `make alerts` sets it.
const envPromtool = "ROCKETFLOW_PROMTOOL"

// sample is a sample of a series.
type sample struct {
	metric string
	labels map[string]string
	value  float64
}

// gathered returns the samples of a registry as Prometheus scrapes them from the job billing.
func gathered(t *testing.T, registry *prometheus.Registry) (samples []sample) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{"job": "billing", "instance": "127.0.0.1:8080"}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			add := func(suffix string, value float64) {
				samples = append(samples, sample{f.GetName() + suffix, maps.Clone(labels), value})
			}
			if h := m.GetHistogram(); h != nil {
				add("_count", float64(h.GetSampleCount()))
				for _, b := range h.GetBucket() {
					labels["le"] = strconv.FormatFloat(b.GetUpperBound(), 'g', -1, 64)
					add("_bucket", float64(b.GetCumulativeCount()))
				}
				continue
			}
			add("", m.GetGauge().GetValue()+m.GetCounter().GetValue())
		}
	}
	return samples
}

// notation returns the sample's series as promtool reads it.
func (s sample) notation() string {
	var labels []string
	for _, name := range slices.Sorted(maps.Keys(s.labels)) {
		labels = append(labels, fmt.Sprintf("%s=%q", name, s.labels[name]))
	}
	return s.metric + "{" + strings.Join(labels, ",") + "}"
}

// A service in which a dead letter holds a stream exports the series of the rules about it, and with them the rules fire.
func TestAlertsFireOnAServiceWithAParkedStream(t *testing.T) {
	t.Parallel()
	env := rocketflowtest.New(t)
	registry := prometheus.NewRegistry()
	topics := []broker.Topic{{Name: "orders"}}
	billing := env.Start(rocketflowfx.Config{Service: "billing", Topics: topics}, fx.Provide(func() prometheus.Registerer { return registry }),
		fx.Invoke(func(r *handlers.Router) {
			r.Handle("bills", "orders", "order.placed", func(context.Context, rocketflow.Tx, rocketflow.Event) error {
				return handlers.Dead(errors.New("no such article"))
			})
		}))
	for range 3 {
		billing.Publish(rocketflow.Event{Topic: "orders", Type: "order.placed", Subject: "4711", Body: []byte(`{}`)})
	}
	env.Settle()
	env.FastForward(time.Hour)
	var samples []sample
	poll.Until(t, "the broker knows what was read", func() bool { // it is told every few seconds; the clock has moved by an hour
		samples = gathered(t, registry)
		return !slices.ContainsFunc(samples, func(s sample) bool { return s.metric == "rocketflow_handlers_unread_messages" && s.value > 0 })
	})

	fire := map[string]map[string]string{
		"RocketflowDeadLetters":  {"job": "billing", "consumer": "bills"},
		"RocketflowStreamParked": {"job": "billing", "consumer": "bills", "reason": "gap"},
	}
	var test bytes.Buffer
	fmt.Fprintf(&test, "rule_files: [rules.yaml]\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n")
	for _, s := range samples {
		fmt.Fprintf(&test, "      - series: %s\n        values: %q\n", quoted(s.notation()), steady(strconv.FormatFloat(s.value, 'f', -1, 64)))
	}
	test.WriteString("    alert_rule_test:\n")
	for _, a := range alerts {
		// Of the parts that this service has, each rule finds series; what needs more to happen has none yet.
		for _, s := range selectors(a.Expr) {
			has := slices.ContainsFunc(samples, func(x sample) bool { return s.matches(x.metric, x.labels) })
			if needed := fire[a.Name] != nil || slices.Contains([]string{"RocketflowEventsOwed", "RocketflowNoSweep", "RocketflowTimersLate", "RocketflowTimersStuck", "RocketflowBrokerDown"}, a.Name); needed && !has {
				t.Errorf("%s: the service exports no series of %+v", a.Name, s)
			}
		}
		if a.Name == "RocketflowNoSweep" { // constant series look like a service that has stopped
			continue
		}
		fmt.Fprintf(&test, "      - eval_time: 30m\n        alertname: %s\n", a.Name)
		if labels := fire[a.Name]; labels != nil {
			test.WriteString("        exp_alerts:\n")
			writeExpected(&test, a, labels)
		} else {
			test.WriteString("        exp_alerts: []\n")
		}
	}
	promtool := os.Getenv(envPromtool)
	if promtool == "" {
		t.Logf("%s is not set: whether the rules fire is for `make alerts` to show", envPromtool)
		return
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{"rules.yaml": rules(), "test.yaml": test.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", filepath.Join(dir, "test.yaml")).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s\n%s", err, out, test.Bytes())
	}
}
