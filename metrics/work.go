package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rocketflow/rocketflow/operate"
)

// ObserveWork registers the collector of the unfinished work of a schema: parked events, timeouts and running sagas. It is read at each
// scrape, by indexes and with capped counts. All processes of a service report the same values.
func (m *Metrics) ObserveWork(o *operate.Operator) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(namespace+"_"+name, help, labels, nil)
	}
	m.registry.MustRegister(&work{
		operator:   o,
		parked:     desc("handlers_parked_events", "Events that a consumer has parked, by reason: dead, retry, gap, busy, paused, unhandled. Exact up to 100,000 dead letters of a consumer, and as many others.", "consumer", "reason"),
		parkedAge:  desc("handlers_parked_age_seconds", "Time since the oldest parked event was parked.", "consumer", "reason"),
		armed:      desc("timeout_armed", "Armed timeouts. Exact up to 100,000, as are the other counts of timeouts."),
		overdue:    desc("timeout_overdue", "Timeouts that are due and have not fired."),
		overdueAge: desc("timeout_overdue_age_seconds", "Time since the oldest overdue timeout was due."),
		stuck:      desc("timeout_stuck", "Overdue timeouts whose events were sent many times and not handled."),
		sagas:      desc("saga_running", "Sagas that have not finished, by state.", "saga", "state"),
		sagaAge:    desc("saga_oldest_age_seconds", "How long the saga has been in its state that has been there for the longest time.", "saga", "state"),
	})
}

// work is a collector.
type work struct {
	operator *operate.Operator

	parked, parkedAge, armed, overdue, overdueAge, stuck, sagas, sagaAge *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (w *work) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{w.parked, w.parkedAge, w.armed, w.overdue, w.overdueAge, w.stuck, w.sagas, w.sagaAge} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. While the database can't be read it reports nothing.
func (w *work) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	b, err := w.operator.Backlog(ctx)
	if err != nil {
		return
	}
	now, err := w.operator.Now(ctx)
	if err != nil {
		return
	}
	sagas, err := w.operator.RunningSagas(ctx)
	if err != nil {
		return
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	since := func(t time.Time) float64 {
		if t.IsZero() {
			return 0
		}
		return max(now.Sub(t), 0).Seconds()
	}
	for _, p := range b.Parked {
		gauge(w.parked, float64(p.Events), p.Consumer, string(p.Reason))
		gauge(w.parkedAge, since(p.Oldest), p.Consumer, string(p.Reason))
	}
	gauge(w.armed, float64(b.Timeouts.Armed))
	gauge(w.overdue, float64(b.Timeouts.Overdue))
	gauge(w.overdueAge, since(b.Timeouts.OldestDue))
	gauge(w.stuck, float64(b.Timeouts.Stuck))
	for _, s := range sagas {
		gauge(w.sagas, float64(s.Sagas), s.Saga, s.State)
		gauge(w.sagaAge, s.Oldest.Seconds(), s.Saga, s.State)
	}
}
