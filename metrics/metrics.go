package metrics

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/doctor"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/timeout"
)

const namespace = "rocketflow"

// durationBuckets are the buckets of durations, in seconds: from a fast round trip on one machine to a minute.
var durationBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

// Metrics creates the listeners that feed the collectors of one registry. See the package documentation for the metrics.
type Metrics struct {
	registry prometheus.Registerer
}

// New returns a Metrics for a registry. Each of its methods registers the collectors of one concept and may be called once
// per registry: like prometheus.MustRegister it panics if a name is registered already. The listeners are safe for
// concurrent use.
func New(r prometheus.Registerer) *Metrics { return &Metrics{registry: r} }

func (m *Metrics) counter(subsystem, name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}, labels)
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) histogram(subsystem, name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help, Buckets: buckets}, labels)
	m.registry.MustRegister(h)
	return h
}

func (m *Metrics) gauge(subsystem, name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help})
	m.registry.MustRegister(g)
	return g
}

// labelValue turns a text into the style of label values: "breaker open" becomes "breaker_open".
func labelValue(words string) string { return strings.ReplaceAll(words, " ", "_") }

// outcome is the label value of an operation that may fail.
func outcome(err error) string {
	if err != nil {
		return "failed"
	}
	return "ok"
}

// Outbox returns the listener for outbox.Config that counts under rocketflow_outbox.
func (m *Metrics) Outbox() *outbox.Listener {
	const subsystem = "outbox"
	recorded := m.counter(subsystem, "events_recorded_total", "Events recorded in transactions, committed or not.", "topic", "type")
	transactions := m.counter(subsystem, "transactions_total", "Publishing transactions by outcome.", "outcome")
	prepared := m.histogram(subsystem, "half_message_prepare_duration_seconds", "Time to store a half message at the broker.", durationBuckets, "outcome")
	ended := m.histogram(subsystem, "half_message_end_duration_seconds", "Time to commit or roll back a half message, the broker's response included.", durationBuckets, "outcome")
	relayed := m.counter(subsystem, "relay_sends_total", "Events that the relay tried to send.", "outcome", "origin")
	sent := m.counter(subsystem, "events_sent_total", "Events that the broker has confirmed, by the path that sent them.", "path")
	byHalf, byRelay := sent.WithLabelValues("half_message"), sent.WithLabelValues("relay")
	group := m.histogram(subsystem, "relay_group_events", "Number of events in one request of the relay.", []float64{1, 2, 4, 8, 16, 32, 64, 128, 256}).WithLabelValues()
	relayPath := m.gauge(subsystem, "relay_path_active", "1 while most transactions take the relay path, 0 while they take the half-message path.")
	breaker := m.gauge(subsystem, "breaker_open", "1 while the breaker is open, else 0.")
	pathChanges := m.counter(subsystem, "path_changes_total", "Changes of the path that most transactions take.", "to", "reason")
	for _, why := range []outbox.PathReason{outbox.PathBusy, outbox.PathBreakerOpen} { // series that exist before the first change, for rates
		pathChanges.WithLabelValues(labelValue(outbox.Relay.String()), labelValue(string(why)))
	}
	rejected := m.counter(subsystem, "events_rejected_total", "Events that the broker rejected. They stay owed: see `rocketflow owed list`.", "topic")
	overflows := m.counter(subsystem, "relay_overflows_total", "Events left to the sweep because the relay's memory was full.").WithLabelValues()
	acks := m.counter(subsystem, "acknowledgements_total", "Acknowledgements written for events that the broker has confirmed.", "outcome")
	checks := m.counter(subsystem, "checkbacks_total", "Check-backs of the broker by the decision returned.", "decision")
	resent := m.counter(subsystem, "events_resent_total", "Events resent to consumers that requested them.").WithLabelValues()
	requests := m.counter(subsystem, "missing_events_requests_total", "Missing-events requests received from consumers.", "outcome")
	expired := m.counter(subsystem, "rows_expired_total", "Rows older than the retention that were deleted outside of partitions.").WithLabelValues()
	partitions := m.counter(subsystem, "partition_changes_total", "Partitions created and dropped.", "change")
	discarded := m.counter(subsystem, "half_messages_discarded_total", "Half messages that the broker discarded because no process responded to its check-backs.").WithLabelValues()
	sweep := m.histogram(subsystem, "sweep_duration_seconds", "Time of one pass of the sweep.", durationBuckets).WithLabelValues()
	decisions := map[broker.Decision]string{broker.Commit: "commit", broker.Rollback: "rollback", broker.Unknown: "unknown"}
	return &outbox.Listener{
		Recorded: func(events []rocketflow.Event) {
			for _, e := range events {
				recorded.WithLabelValues(e.Topic, e.Type).Inc()
			}
		},
		Committed: func([]rocketflow.Event) { transactions.WithLabelValues("committed").Inc() },
		RolledBack: func(i outbox.RolledBackInfo) {
			if i.Unknown {
				transactions.WithLabelValues("unknown").Inc()
			} else {
				transactions.WithLabelValues("rolled_back").Inc()
			}
		},
		Prepared: func(i outbox.PreparedInfo) { prepared.WithLabelValues(outcome(i.Err)).Observe(i.Took.Seconds()) },
		Ended: func(i outbox.EndedInfo) {
			ended.WithLabelValues(outcome(i.Err)).Observe(i.Took.Seconds())
			if i.Err == nil {
				byHalf.Inc()
			}
		},
		Relayed: func(i outbox.RelayedInfo) {
			origin := "transaction"
			if i.Swept {
				origin = "sweep"
			}
			relayed.WithLabelValues(outcome(i.Err), origin).Inc()
			group.Observe(float64(i.Group))
			if i.Err == nil {
				byRelay.Inc()
			}
		},
		PathChanged: func(i outbox.PathInfo) {
			pathChanges.WithLabelValues(labelValue(i.To.String()), labelValue(string(i.Reason))).Inc()
			relayPath.Set(0)
			if i.To == outbox.Relay {
				relayPath.Set(1)
			}
		},
		BreakerChanged: func(open bool) {
			breaker.Set(0)
			if open {
				breaker.Set(1)
			}
		},
		RelayFull: func(rocketflow.Event) { overflows.Inc() },
		Rejected:  func(i outbox.RejectedInfo) { rejected.WithLabelValues(i.Topic).Add(float64(i.Events)) },
		Acked:     func(i outbox.AckedInfo) { acks.WithLabelValues(outcome(i.Err)).Add(float64(len(i.IDs))) },
		Checked:   func(i outbox.CheckedInfo) { checks.WithLabelValues(decisions[i.Decision]).Inc() },
		Resent: func(i outbox.ResentInfo) {
			resent.Add(float64(i.Sent))
			switch {
			case i.Refused:
				requests.WithLabelValues("refused").Inc()
			case i.Err != nil:
				requests.WithLabelValues("failed").Inc()
			case i.Gone:
				requests.WithLabelValues("gone").Inc()
			default:
				requests.WithLabelValues("resent").Inc()
			}
		},
		Retained: func(i outbox.RetainedInfo) {
			expired.Add(float64(i.Expired))
			partitions.WithLabelValues("created").Add(float64(len(i.Made)))
			partitions.WithLabelValues("dropped").Add(float64(len(i.Dropped)))
		},
		Discarded: func(outbox.DiscardedInfo) { discarded.Inc() },
		Swept:     func(i outbox.SweptInfo) { sweep.Observe(i.Took.Seconds()) },
	}
}

// ObserveBacklog registers the collector of the backlog of o, which is read at each scrape. Call it after o has started.
func (m *Metrics) ObserveBacklog(o *outbox.Outbox) {
	m.registry.MustRegister(&backlog{
		outbox: o,
		events: prometheus.NewDesc(namespace+"_outbox_backlog_events", "Owed events: recorded and not acknowledged by the broker.", nil, nil),
		age:    prometheus.NewDesc(namespace+"_outbox_backlog_age_seconds", "Age of the oldest owed event.", nil, nil),
	})
}

// backlog is a collector.
type backlog struct {
	outbox      *outbox.Outbox
	events, age *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (b *backlog) Describe(ch chan<- *prometheus.Desc) {
	ch <- b.events
	ch <- b.age
}

// Collect implements prometheus.Collector. While the database can't be read it reports nothing, which is a gap in the graph
// and no wrong number.
func (b *backlog) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	events, age, err := b.outbox.Backlog(ctx)
	if err != nil {
		return
	}
	ch <- prometheus.MustNewConstMetric(b.events, prometheus.GaugeValue, float64(events))
	ch <- prometheus.MustNewConstMetric(b.age, prometheus.GaugeValue, age.Seconds())
}

// ObserveDoctor registers the collector of the last report of d, which is read at each scrape. Before the first report, and once d is
// stopped, there is nothing to collect.
func (m *Metrics) ObserveDoctor(d *doctor.Doctor) {
	m.registry.MustRegister(&doctorReport{
		doctor:   d,
		findings: prometheus.NewDesc(namespace+"_doctor_finding", "Findings of the last examination: see docs/doctor.md.", []string{"code", "severity"}, nil),
		unknown:  prometheus.NewDesc(namespace+"_doctor_unknown", "Answers of checks of the last examination that could not look.", []string{"code"}, nil),
		at:       prometheus.NewDesc(namespace+"_doctor_examined_timestamp_seconds", "When the last examination began, as a Unix time.", nil, nil),
	})
}

// doctorReport is a collector.
type doctorReport struct {
	doctor                *doctor.Doctor
	findings, unknown, at *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (d *doctorReport) Describe(ch chan<- *prometheus.Desc) {
	ch <- d.findings
	ch <- d.unknown
	ch <- d.at
}

// Collect implements prometheus.Collector. A check without a finding has the value 0, so that an alert ends.
func (d *doctorReport) Collect(ch chan<- prometheus.Metric) {
	report := d.doctor.Last()
	if report == nil {
		return
	}
	type series struct{ code, severity string }
	findings, unknown := map[series]float64{}, map[string]float64{}
	for _, r := range report.Results {
		key := series{r.Code, string(r.Severity)}
		findings[key] += 0
		unknown[r.Code] += 0
		switch r.Status {
		case doctor.Finding:
			findings[key]++
		case doctor.Unknown:
			unknown[r.Code]++
		}
	}
	for key, n := range findings {
		ch <- prometheus.MustNewConstMetric(d.findings, prometheus.GaugeValue, n, key.code, key.severity)
	}
	for code, n := range unknown {
		ch <- prometheus.MustNewConstMetric(d.unknown, prometheus.GaugeValue, n, code)
	}
	ch <- prometheus.MustNewConstMetric(d.at, prometheus.GaugeValue, float64(report.ExaminedAt.UnixMilli())/1000)
}

// Handlers returns the listener for handlers.Config that counts under rocketflow_handlers.
func (m *Metrics) Handlers() *handlers.Listener {
	events := m.counter("handlers", "events_total", "Events by outcome.", "consumer", "outcome")
	took := m.histogram("handlers", "handler_duration_seconds", "Time of one call of a handler.", durationBuckets, "consumer", "type")
	latency := m.histogram("handlers", "latency_seconds", "Time from the recording of an event to the commit of its handler.", durationBuckets, "consumer")
	batch := m.histogram("handlers", "batch_events", "Number of events that one transaction of a lane handled.", []float64{1, 2, 4, 8, 16, 32, 64}, "consumer")
	panics := m.counter("handlers", "panics_total", "Calls of handlers that panicked.", "consumer")
	unresponsive := m.counter("handlers", "unresponsive_total", "Calls of handlers that were abandoned because they did not return after their context had ended.", "consumer", "type")
	requests := m.counter("handlers", "missing_events_requests_total", "Missing-events requests sent to publishers.", "consumer", "outcome")
	paused := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: namespace, Subsystem: "handlers", Name: "paused", Help: "Things of a consumer that operators have paused, by kind.",
	}, []string{"consumer", "kind"})
	m.registry.MustRegister(paused)
	stalls := m.counter("handlers", "stalls_total", "Times that a lane waited because PostgreSQL could not be used.", "consumer")
	count := func(outcome string) func(handlers.EventInfo) {
		return func(i handlers.EventInfo) { events.WithLabelValues(i.Consumer, outcome).Inc() }
	}
	unhandled, busy, held := count("unhandled"), count("busy"), count("paused")
	duplicate, skipped, discarded, gap, parked, retried, dead := count("duplicate"), count("skipped"), count("discarded"), count("gap"), count("parked"), count("retried"), count("dead_letter")
	return &handlers.Listener{
		Committed: func(i handlers.BatchInfo) { batch.WithLabelValues(i.Consumer).Observe(float64(len(i.Events))) },
		Handled: func(i handlers.HandledInfo) {
			events.WithLabelValues(i.Consumer, "handled").Inc()
			took.WithLabelValues(i.Consumer, i.Event.Type).Observe(i.Took.Seconds())
			latency.WithLabelValues(i.Consumer).Observe(i.Latency.Seconds())
		},
		Duplicate: duplicate,
		Skipped:   skipped,
		Discarded: func(i handlers.FailureInfo) { discarded(i.EventInfo) },
		Gap:       func(i handlers.GapInfo) { gap(i.EventInfo) },
		MissingRequested: func(i handlers.MissingRequestedInfo) {
			requests.WithLabelValues(i.Consumer, outcome(i.Err)).Inc()
		},
		Parked: func(i handlers.ParkedInfo) {
			switch i.Reason {
			case handlers.Unhandled:
				unhandled(i.EventInfo)
			case handlers.Busy:
				busy(i.EventInfo)
			case handlers.Paused:
				held(i.EventInfo)
			default:
				parked(i.EventInfo)
			}
		},
		Retried:      func(i handlers.RetriedInfo) { retried(i.EventInfo) },
		Dead:         func(i handlers.FailureInfo) { dead(i.EventInfo) },
		Unresponsive: func(i handlers.UnresponsiveInfo) { unresponsive.WithLabelValues(i.Consumer, i.Event.Type).Inc() },
		Panicked:     func(i handlers.PanickedInfo) { panics.WithLabelValues(i.Consumer).Inc() },
		Paused: func(i handlers.PausedInfo) {
			number := map[handlers.PauseKind]float64{handlers.PausedConsumer: 0, handlers.PausedHandler: 0, handlers.PausedStream: 0}
			for _, p := range i.Pauses {
				number[p.Kind]++
			}
			for kind, n := range number {
				paused.WithLabelValues(i.Consumer, string(kind)).Set(n)
			}
		},
		Stalled: func(i handlers.StalledInfo) { stalls.WithLabelValues(i.Consumer).Inc() },
	}
}

// Timeout returns the listener for timeout.Config that counts under rocketflow_timeout.
func (m *Metrics) Timeout() *timeout.Listener {
	changes := m.counter("timeout", "changes_total", "Changes of timeouts by kind.", "change")
	lateness := m.histogram("timeout", "lateness_seconds", "Time from the due instant of a timeout to its firing.", durationBuckets).WithLabelValues()
	count := func(change string) func(timeout.Info) {
		c := changes.WithLabelValues(change)
		return func(timeout.Info) { c.Inc() }
	}
	fired, failed := count("fired"), count("hand_over_failed")
	return &timeout.Listener{
		Armed: count("armed"), Disarmed: count("disarmed"), HandedOver: count("handed_over"), Recovered: count("recovered"),
		TooEarly: count("too_early"), Stale: count("stale"), Stuck: count("stuck"),
		HandOverFailed: failed,
		Fired: func(i timeout.Info) {
			fired(i)
			lateness.Observe(i.Late.Seconds())
		},
	}
}

// Saga returns the listener for saga.Config that counts under rocketflow_saga.
func (m *Metrics) Saga() *saga.Listener {
	transitions := m.counter("saga", "transitions_total", "Transitions of sagas by cause.", "saga", "from", "to", "cause")
	ignored := m.counter("saga", "events_ignored_total", "Events that a saga ignored, by reason.", "saga", "reason")
	waiting := m.counter("saga", "waiting_events_total", "Changes of waiting events: those that came before the state that takes them.", "saga", "outcome")
	count := func(outcome string) func(saga.WaitInfo) {
		return func(i saga.WaitInfo) { waiting.WithLabelValues(i.Saga, outcome).Inc() }
	}
	return &saga.Listener{
		Moved: func(i saga.TransitionInfo) {
			cause := "event"
			if i.Deadline {
				cause = "deadline"
			}
			transitions.WithLabelValues(i.Saga, i.From, i.To, cause).Inc()
		},
		Ignored: func(i saga.IgnoredInfo) { ignored.WithLabelValues(i.Saga, string(i.Reason)).Inc() },
		Waiting: count("waiting"), WaitRetry: count("retried"), WaitFailed: count("failed"), WaitExpired: count("expired"),
	}
}

// Reconciliation returns the function for operate.ReconcilerConfig.Report that counts under rocketflow_reconciliation. Only the process
// that reconciles has values for events.
func (m *Metrics) Reconciliation() func(*operate.Reconciliation, error) {
	passes := m.counter("reconciliation", "passes_total", "Passes of the reconciliation by outcome.", "outcome")
	events := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: namespace, Subsystem: "reconciliation", Name: "events",
		Help: "Events that a consumer has not handled, by state: waiting, missing, unknown (waiting or missing). See `rocketflow reconcile`.",
	}, []string{"service", "consumer", "state"})
	uncompared := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: namespace, Subsystem: "reconciliation", Name: "uncompared",
		Help: "What the last pass could not compare: schemas that can't be read, events of which it is unknown whether they are missing, types of events without a consumer in the schemas that were read, and partial: 1 if not all events were looked at.",
	}, []string{"what"})
	m.registry.MustRegister(events, uncompared)
	return func(x *operate.Reconciliation, err error) {
		switch {
		case err != nil:
			passes.WithLabelValues(outcome(err)).Inc()
			return
		case x == nil: // another process reconciles
			events.Reset()
			uncompared.Reset()
			return
		}
		_, _, _, _, unknown := x.Totals()
		partial := 0
		if x.Partial {
			partial = 1
		}
		for what, n := range map[string]int{"schemas": len(x.Unread), "events": unknown, "types": len(x.Unclaimed), "partial": partial} {
			uncompared.WithLabelValues(what).Set(float64(n))
		}
		passes.WithLabelValues(outcome(nil)).Inc()
		events.Reset() // of consumers that are gone
		for i := range x.Consumers {
			c := &x.Consumers[i]
			events.WithLabelValues(c.Service, c.Consumer, "waiting").Set(float64(c.Waiting()))
			events.WithLabelValues(c.Service, c.Consumer, "missing").Set(float64(c.Missing))
			events.WithLabelValues(c.Service, c.Consumer, "unknown").Set(float64(c.Unknown))
		}
	}
}

// RocketMQ returns the listener for rocketmq.Config that counts under rocketflow_broker.
func (m *Metrics) RocketMQ() *rocketmq.Listener {
	up := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Subsystem: "broker", Name: "up", Help: "1 while the driver's own connection to the broker is open, else 0."}, []string{"broker"})
	m.registry.MustRegister(up)
	restarts := m.counter("broker", "consumer_restarts_total", "Consumers that were restarted, such as after a broker came back.").WithLabelValues()
	held := m.counter("broker", "deliveries_held_total", "Messages held for another attempt because their consumer could not take them.", "group")
	lessSafely := m.counter("broker", "stored_less_safely_total", "Messages that a broker has stored, but not flushed or replicated as it is set to.", "broker", "reason")
	return &rocketmq.Listener{
		StoredLessSafely: func(i rocketmq.StoredInfo) {
			lessSafely.WithLabelValues(i.Broker, string(i.Reason)).Add(float64(i.Messages))
		},
		BrokerUp:          func(i rocketmq.BrokerInfo) { up.WithLabelValues(i.Broker).Set(1) },
		BrokerDown:        func(i rocketmq.BrokerInfo) { up.WithLabelValues(i.Broker).Set(0) },
		ConsumerRestarted: func(rocketmq.ConsumerInfo) { restarts.Inc() },
		HandlerFailed:     func(i rocketmq.HandlerInfo) { held.WithLabelValues(i.Group).Inc() },
	}
}
