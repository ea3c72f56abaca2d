// Package metrics counts what rocketflow does, for Prometheus. It offers a listener for each concept; the concepts know
// nothing of it.
//
//	m := metrics.New(prometheus.DefaultRegisterer)
//	box, err := outbox.New(outbox.Config{..., Listener: m.Outbox()})
//	m.ObserveBacklog(box)
//
// # Names
//
//	rocketflow_outbox_recorded_total{topic,type}                    events recorded in transactions
//	rocketflow_outbox_transactions_total{outcome}                   committed, rolled_back, unknown
//	rocketflow_outbox_half_seconds{outcome}                         storing a half message: ok, failed
//	rocketflow_outbox_end_seconds{outcome}                          ending one, answer included: ok, failed
//	rocketflow_outbox_relayed_total{outcome,swept}                  sends by the relay; swept: found by the sweep
//	rocketflow_outbox_sent_total{gear}                              events that the broker has: half_message, relay
//	rocketflow_outbox_relay_group_events                            events that shared a request of the relay
//	rocketflow_outbox_gear_relay                                    1 while most transactions take the relay, else 0
//	rocketflow_outbox_breaker_open                                  1 from the breaker's opening to its closing
//	rocketflow_outbox_gear_changes_total{to,why}                    to: half_messages, relay; why: pinned, busy, free,
//	                                                                breaker_open, breaker_closed
//	rocketflow_outbox_relay_full_total                              events left to the sweep because memory was full
//	rocketflow_outbox_acks_total{outcome}                           events written down as sent
//	rocketflow_outbox_checks_total{decision}                        check-backs: commit, rollback, unknown
//	rocketflow_outbox_refilled_total                                events sent again to consumers that missed them
//	rocketflow_outbox_refills_total{outcome}                        their questions: answered, gone, refused, failed
//	rocketflow_outbox_expired_total                                 old rows deleted that no partition covers
//	rocketflow_outbox_partitions_total{change}                      made, dropped
//	rocketflow_outbox_discarded_total                               half messages that the broker gave up unanswered
//	rocketflow_outbox_sweep_seconds                                 passes of the sweep
//	rocketflow_outbox_backlog_events, _backlog_oldest_seconds       what is owed, as known at each scrape
//	rocketflow_handlers_events_total{consumer,outcome}              handled, duplicate, skipped, discarded, gap, parked,
//	                                                                retried, dead
//	rocketflow_handlers_questions_total{consumer,outcome}           for missing events: asked, failed
//	rocketflow_handlers_handler_seconds{consumer,type}              calls of handlers
//	rocketflow_handlers_latency_seconds{consumer}                   from the recording of an event to its handler's commit
//	rocketflow_handlers_batch_events{consumer}                      events that shared a transaction
//	rocketflow_handlers_panics_total{consumer}
//	rocketflow_handlers_stalls_total{consumer}                      Postgres could not be used
//	rocketflow_timeout_total{outcome}                               armed, disarmed, handed_over, hand_over_failed,
//	                                                                recovered, fired, too_early, stale, stuck
//	rocketflow_timeout_late_seconds                                 from the due instant to the firing
//	rocketflow_saga_transitions_total{saga,from,to,cause}           cause: event, deadline
//	rocketflow_saga_ignored_total{saga,reason}
//	rocketflow_saga_waiting_events_total{saga,outcome}              early events: waiting, retried, failed, expired
//	rocketflow_broker_up{broker}                                    1 while our own connection to it stands
//	rocketflow_broker_renewals_total                                consumers renewed after a broker came back
//	rocketflow_broker_handler_failures_total{group}                 messages held for another try
//
// Labels take values from code and configuration alone, never from data, so their number is bounded.
package metrics

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/timeout"
)

const namespace = "rocketflow"

// seconds reaches from a fast round trip on one machine to a minute.
var seconds = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

// Metrics holds the collectors of one registry.
type Metrics struct {
	registry prometheus.Registerer
}

// New returns metrics that register with r when their listeners are asked for. Each listener can be asked for once a
// registry, as a registry refuses the same name twice: it panics then, as prometheus.MustRegister does.
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

func label(words string) string { return strings.ReplaceAll(words, " ", "_") }

func outcome(err error) string {
	if err != nil {
		return "failed"
	}
	return "ok"
}

// Outbox returns a listener for outbox.Config.
func (m *Metrics) Outbox() *outbox.Listener {
	recorded := m.counter("outbox", "recorded_total", "Events recorded in transactions.", "topic", "type")
	transactions := m.counter("outbox", "transactions_total", "Publishing transactions by outcome.", "outcome")
	half := m.histogram("outbox", "half_seconds", "Storing a half message.", seconds, "outcome")
	end := m.histogram("outbox", "end_seconds", "Ending a half message.", seconds, "outcome")
	relayed := m.counter("outbox", "relayed_total", "Sends by the relay.", "outcome", "swept")
	sent := m.counter("outbox", "sent_total", "Events that the broker has.", "gear")
	byHalf, byRelay := sent.WithLabelValues("half_message"), sent.WithLabelValues("relay")
	group := m.histogram("outbox", "relay_group_events", "Events that shared a request of the relay.", []float64{1, 2, 4, 8, 16, 32, 64, 128, 256}).WithLabelValues()
	gear := m.gauge("outbox", "gear_relay", "1 while most transactions take the relay.")
	breaker := m.gauge("outbox", "breaker_open", "1 from the breaker's opening to its closing.")
	gears := m.counter("outbox", "gear_changes_total", "Changes of the gear that most transactions take.", "to", "why")
	for _, why := range []outbox.PathReason{outbox.PathBusy, outbox.PathBreakerOpen} { // there before the first change, for rates
		gears.WithLabelValues(label(outbox.Relay.String()), label(string(why)))
	}
	rejected := m.counter("outbox", "rejected_total", "Events that the broker rejected: they stay owed, see `rocketflow owed`.", "topic")
	full := m.counter("outbox", "relay_full_total", "Events left to the sweep because the relay's memory was full.").WithLabelValues()
	acks := m.counter("outbox", "acks_total", "Events written down as sent.", "outcome")
	checks := m.counter("outbox", "checks_total", "Check-backs by answer.", "decision")
	refilled := m.counter("outbox", "refilled_total", "Events sent again to consumers that missed them.").WithLabelValues()
	refills := m.counter("outbox", "refills_total", "Questions of consumers that miss events.", "outcome")
	expired := m.counter("outbox", "expired_total", "Old rows deleted that no partition covers.").WithLabelValues()
	partitions := m.counter("outbox", "partitions_total", "Partitions made and dropped.", "change")
	discarded := m.counter("outbox", "discarded_total", "Half messages that the broker gave up because nobody answered its checks.").WithLabelValues()
	sweep := m.histogram("outbox", "sweep_seconds", "Passes of the sweep.", seconds).WithLabelValues()
	decisions := map[broker.Decision]string{broker.Commit: "commit", broker.Rollback: "rollback", broker.Unknown: "unknown"}
	return &outbox.Listener{
		Recorded: func(events []rocketflow.Event) {
			for _, e := range events {
				recorded.WithLabelValues(e.Topic, e.Type).Inc()
			}
		},
		Committed: func([]rocketflow.Event) { transactions.WithLabelValues("committed").Inc() },
		RolledBack: func(_ []rocketflow.Event, unknown bool) {
			if unknown {
				transactions.WithLabelValues("unknown").Inc()
			} else {
				transactions.WithLabelValues("rolled_back").Inc()
			}
		},
		Prepared: func(i outbox.PreparedInfo) { half.WithLabelValues(outcome(i.Err)).Observe(i.Took.Seconds()) },
		Ended: func(i outbox.EndedInfo) {
			end.WithLabelValues(outcome(i.Err)).Observe(i.Took.Seconds())
			if i.Err == nil {
				byHalf.Inc()
			}
		},
		Relayed: func(i outbox.RelayedInfo) {
			swept := "no"
			if i.Swept {
				swept = "yes"
			}
			relayed.WithLabelValues(outcome(i.Err), swept).Inc()
			group.Observe(float64(i.Group))
			if i.Err == nil {
				byRelay.Inc()
			}
		},
		PathChanged: func(i outbox.PathInfo) {
			gears.WithLabelValues(label(i.To.String()), label(string(i.Reason))).Inc()
			gear.Set(0)
			if i.To == outbox.Relay {
				gear.Set(1)
			}
		},
		BreakerChanged: func(open bool) {
			breaker.Set(0)
			if open {
				breaker.Set(1)
			}
		},
		RelayFull: func(rocketflow.Event) { full.Inc() },
		Rejected:  func(i outbox.RejectedInfo) { rejected.WithLabelValues(i.Topic).Add(float64(i.Events)) },
		Acked:     func(i outbox.AckedInfo) { acks.WithLabelValues(outcome(i.Err)).Add(float64(len(i.IDs))) },
		Checked:   func(i outbox.CheckedInfo) { checks.WithLabelValues(decisions[i.Decision]).Inc() },
		Resent: func(i outbox.ResentInfo) {
			refilled.Add(float64(i.Sent))
			switch {
			case i.Refused:
				refills.WithLabelValues("refused").Inc()
			case i.Err != nil:
				refills.WithLabelValues("failed").Inc()
			case i.Gone:
				refills.WithLabelValues("gone").Inc()
			default:
				refills.WithLabelValues("answered").Inc()
			}
		},
		Retained: func(i outbox.RetainedInfo) {
			expired.Add(float64(i.Expired))
			partitions.WithLabelValues("made").Add(float64(len(i.Made)))
			partitions.WithLabelValues("dropped").Add(float64(len(i.Dropped)))
		},
		Discarded: func(outbox.DiscardedInfo) { discarded.Inc() },
		Swept:     func(i outbox.SweptInfo) { sweep.Observe(i.Took.Seconds()) },
	}
}

// ObserveBacklog reports what o owes, at each scrape.
func (m *Metrics) ObserveBacklog(o *outbox.Outbox) {
	m.registry.MustRegister(&backlog{
		outbox: o,
		events: prometheus.NewDesc(namespace+"_outbox_backlog_events", "Events owed to the broker.", nil, nil),
		oldest: prometheus.NewDesc(namespace+"_outbox_backlog_oldest_seconds", "Age of the oldest event owed to the broker.", nil, nil),
	})
}

type backlog struct {
	outbox         *outbox.Outbox
	events, oldest *prometheus.Desc
}

func (b *backlog) Describe(ch chan<- *prometheus.Desc) {
	ch <- b.events
	ch <- b.oldest
}

// Collect reports nothing while the database can't be read: a gap in the graph is the truth then.
func (b *backlog) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	events, oldest, err := b.outbox.Backlog(ctx)
	if err != nil {
		return
	}
	ch <- prometheus.MustNewConstMetric(b.events, prometheus.GaugeValue, float64(events))
	ch <- prometheus.MustNewConstMetric(b.oldest, prometheus.GaugeValue, oldest.Seconds())
}

// Handlers returns a listener for handlers.Config.
func (m *Metrics) Handlers() *handlers.Listener {
	events := m.counter("handlers", "events_total", "Events by what became of them.", "consumer", "outcome")
	took := m.histogram("handlers", "handler_seconds", "Calls of handlers.", seconds, "consumer", "type")
	latency := m.histogram("handlers", "latency_seconds", "From the recording of an event to its handler's commit.", seconds, "consumer")
	batch := m.histogram("handlers", "batch_events", "Events that shared a transaction.", []float64{1, 2, 4, 8, 16, 32, 64}, "consumer")
	panics := m.counter("handlers", "panics_total", "Handlers that panicked.", "consumer")
	unresponsive := m.counter("handlers", "unresponsive_total", "Handlers that were abandoned because they ignored that their context had ended.", "consumer", "type")
	questions := m.counter("handlers", "questions_total", "Questions to publishers for missing events.", "consumer", "outcome")
	stalls := m.counter("handlers", "stalls_total", "Times that Postgres could not be used.", "consumer")
	count := func(outcome string) func(handlers.EventInfo) {
		return func(i handlers.EventInfo) { events.WithLabelValues(i.Consumer, outcome).Inc() }
	}
	unhandled, busy := count("unhandled"), count("busy")
	duplicate, skipped, discarded, gap, parked, retried, dead := count("duplicate"), count("skipped"), count("discarded"), count("gap"), count("parked"), count("retried"), count("dead")
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
			asked := "asked"
			if i.Err != nil {
				asked = "failed"
			}
			questions.WithLabelValues(i.Consumer, asked).Inc()
		},
		Parked: func(i handlers.ParkedInfo) {
			switch i.Reason {
			case handlers.Unhandled:
				unhandled(i.EventInfo)
			case handlers.Busy:
				busy(i.EventInfo)
			default:
				parked(i.EventInfo)
			}
		},
		Retried:      func(i handlers.RetriedInfo) { retried(i.EventInfo) },
		Dead:         func(i handlers.FailureInfo) { dead(i.EventInfo) },
		Unresponsive: func(i handlers.UnresponsiveInfo) { unresponsive.WithLabelValues(i.Consumer, i.Event.Type).Inc() },
		Panicked:     func(i handlers.PanickedInfo) { panics.WithLabelValues(i.Consumer).Inc() },
		Stalled:      func(i handlers.StalledInfo) { stalls.WithLabelValues(i.Consumer).Inc() },
	}
}

// Timeout returns a listener for timeout.Config.
func (m *Metrics) Timeout() *timeout.Listener {
	total := m.counter("timeout", "total", "Timeouts by what became of them.", "outcome")
	late := m.histogram("timeout", "late_seconds", "From the due instant to the firing.", seconds).WithLabelValues()
	count := func(outcome string) func(timeout.Info) {
		c := total.WithLabelValues(outcome)
		return func(timeout.Info) { c.Inc() }
	}
	fired, failed := count("fired"), count("hand_over_failed")
	return &timeout.Listener{
		Armed: count("armed"), Disarmed: count("disarmed"), HandedOver: count("handed_over"), Recovered: count("recovered"),
		TooEarly: count("too_early"), Stale: count("stale"), Stuck: count("stuck"),
		HandOverFailed: failed,
		Fired: func(i timeout.Info) {
			fired(i)
			late.Observe(i.Late.Seconds())
		},
	}
}

// Saga returns a listener for saga.Config.
func (m *Metrics) Saga() *saga.Listener {
	transitions := m.counter("saga", "transitions_total", "Transitions of sagas.", "saga", "from", "to", "cause")
	ignored := m.counter("saga", "ignored_total", "Events that a saga had no use for.", "saga", "reason")
	waiting := m.counter("saga", "waiting_events_total", "Events that came early, by what became of them.", "saga", "outcome")
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

// RocketMQ returns a listener for rocketmq.Config.
func (m *Metrics) RocketMQ() *rocketmq.Listener {
	up := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Subsystem: "broker", Name: "up", Help: "1 while the connection to the broker stands."}, []string{"broker"})
	m.registry.MustRegister(up)
	renewals := m.counter("broker", "renewals_total", "Consumers renewed after a broker came back.").WithLabelValues()
	failures := m.counter("broker", "handler_failures_total", "Messages held for another try.", "group")
	return &rocketmq.Listener{
		BrokerUp:        func(i rocketmq.BrokerInfo) { up.WithLabelValues(i.Broker).Set(1) },
		BrokerDown:      func(i rocketmq.BrokerInfo) { up.WithLabelValues(i.Broker).Set(0) },
		ConsumerRenewed: func(rocketmq.ConsumerInfo) { renewals.Inc() },
		HandlerFailed:   func(i rocketmq.HandlerInfo) { failures.WithLabelValues(i.Group).Inc() },
	}
}
