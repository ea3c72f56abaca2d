package metrics_test

import (
	"maps"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rocketflow/rocketflow/metrics"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// unfinishedWork returns an operator of a schema in which an event is parked, a timeout is overdue and a saga runs.
func unfinishedWork(t *testing.T) *operate.Operator {
	t.Helper()
	pool, schema := testdb.Migrated(t)
	for _, statement := range []string{
		"INSERT INTO consumer (name) VALUES ('bills')",
		`INSERT INTO parked (consumer, event_id, reason, attempts, next_at, last_error, parked_at, source, topic, type, subject, sequence, previous, recorded_at, database,
			timeout_key, timeout_name, content_type, body)
			VALUES ('bills', gen_random_uuid(), 'dead', 3, 'infinity', 'oops', now() - interval '1 hour', 'shop', 'orders', 'order.placed', 'o-1', 1, 0, now(), '',
			'', '', 'application/json', '{}')`,
		`INSERT INTO timeout (key, name, epoch, due_at, next_sweep_at, source, topic, type, subject, content_type, body)
			VALUES ('o-1', 't', gen_random_uuid(), now() - interval '1 hour', now(), 'shop', 'timeouts', 'due', 'o-1', 'application/json', '{}')`,
		`INSERT INTO saga (name, key, version, state, data, revision, changed_at) SELECT 'order', 'o-' || n, 1 + n % 2, 'open', '{}', 1, now() - n * interval '1 hour'
			FROM generate_series(1, 2) n`,
	} {
		if _, err := pool.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	o, err := operate.New(operate.Config{Pool: pool, Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// Counts and ages of what is unfinished are those of the tables.
func TestWorkMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	metrics.New(registry).ObserveWork(unfinishedWork(t))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{} // ages in hours
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name, value := f.GetName(), m.GetGauge().GetValue()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			if value > 100 {
				value /= 3600
			}
			got[name] = int(value)
		}
	}
	want := map[string]int{
		"rocketflow_handlers_parked_events bills dead": 1, "rocketflow_handlers_parked_age_seconds bills dead": 1,
		"rocketflow_timeout_armed": 1, "rocketflow_timeout_overdue": 1, "rocketflow_timeout_overdue_age_seconds": 1, "rocketflow_timeout_stuck": 0,
		"rocketflow_saga_running order open": 2, "rocketflow_saga_oldest_age_seconds order open": 2,
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
