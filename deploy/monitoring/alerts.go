package main

import "strings"

// alert is an alert rule.
type alert struct {
	Name string
	// Expr is in PromQL. Its labels are those of metrics, and job, by which Prometheus tells services apart.
	Expr     string
	For      string // how long it has to hold
	Severity string // critical: something stands still or is lost; warning: it soon may be
	// Summary and Description may have {{ $labels.x }}. Description says what to do.
	Summary, Description string

	// What the rule is tested with: series with which it fires after a quarter of an hour, with which labels, and series with which it
	// doesn't.
	Fires, Quiet []series
	Labels       map[string]string
	Interval, At string // of the samples and of the evaluation. Default to 1m and 15m.
}

// series are samples of a series, in the notation of promtool.
type series struct{ Name, Values string }

// runbook returns the address of the alert's entry in the runbook.
func (a alert) runbook() string {
	return "https://github.com/rocketflow/rocketflow/blob/main/docs/runbook.md#" + strings.ToLower(a.Name)
}

// Severities.
const (
	critical = "critical"
	warning  = "warning"
)

// steady is a value that stays for half an hour.
func steady(value string) string { return value + "+0x30" }

// alerts are all alert rules. A wait of some minutes keeps deploys and short outages quiet.
var alerts = []alert{
	{
		Name: "RocketflowEventsOwed", Severity: critical, For: "2m",
		Expr:        `max by (job) (rocketflow_outbox_backlog_age_seconds) > 60`,
		Summary:     "{{ $labels.job }}: committed events don't reach the broker",
		Description: "The oldest owed event is older than a minute. Run `rocketflow inspect backlog`; see that the broker can be reached and accepts the topics.",
		Fires:       []series{{`rocketflow_outbox_backlog_age_seconds{job="shop"}`, "0+60x30"}},
		Quiet:       []series{{`rocketflow_outbox_backlog_age_seconds{job="shop"}`, steady("5")}},
		Labels:      map[string]string{"job": "shop"},
	},
	{
		Name: "RocketflowEventsRejected", Severity: critical, For: "0m",
		Expr:        `sum by (job, topic) (increase(rocketflow_outbox_events_rejected_total[10m])) > 0`,
		Summary:     "{{ $labels.job }}: the broker rejects events of topic {{ $labels.topic }}",
		Description: "Rejected events stay owed, and consumers of their streams wait. Run `rocketflow owed list` for the reason, mend it, then `rocketflow owed retry`.",
		Fires:       []series{{`rocketflow_outbox_events_rejected_total{job="shop",topic="orders"}`, "0+1x30"}},
		Quiet:       []series{{`rocketflow_outbox_events_rejected_total{job="shop",topic="orders"}`, steady("7")}},
		Labels:      map[string]string{"job": "shop", "topic": "orders"},
	},
	{
		Name: "RocketflowNoSweep", Severity: critical, For: "5m",
		Expr:        `sum by (job) (increase(rocketflow_outbox_sweep_duration_seconds_count[5m])) == 0`,
		Summary:     "{{ $labels.job }}: no process sweeps the outbox",
		Description: "What processes that died have left is not sent. Run `rocketflow doctor --only outbox-sweep`; see that a process of the service runs and reaches PostgreSQL.",
		Fires:       []series{{`rocketflow_outbox_sweep_duration_seconds_count{job="shop"}`, steady("100")}},
		Quiet:       []series{{`rocketflow_outbox_sweep_duration_seconds_count{job="shop",instance="a"}`, steady("100")}, {`rocketflow_outbox_sweep_duration_seconds_count{job="shop",instance="b"}`, "0+60x30"}},
		Labels:      map[string]string{"job": "shop"},
	},
	{
		Name: "RocketflowStreamParked", Severity: warning, For: "1m",
		Expr:        `max by (job, consumer, reason) (rocketflow_handlers_parked_age_seconds{reason!~"dead|paused"}) > 600`,
		Summary:     "{{ $labels.job }}: consumer {{ $labels.consumer }} has parked events for long ({{ $labels.reason }})",
		Description: "A stream stands still: its first event fails again and again, its predecessor is missing, or no process has the handler. Run `rocketflow redrive parked`, and `rocketflow why EVENT` for one of them.",
		Fires:       []series{{`rocketflow_handlers_parked_age_seconds{job="billing",consumer="bills",reason="gap"}`, "0+60x30"}},
		Quiet:       []series{{`rocketflow_handlers_parked_age_seconds{job="billing",consumer="bills",reason="dead"}`, "0+60x30"}, {`rocketflow_handlers_parked_age_seconds{job="billing",consumer="bills",reason="paused"}`, "0+60x30"}, {`rocketflow_handlers_parked_age_seconds{job="billing",consumer="bills",reason="retry"}`, steady("30")}},
		Labels:      map[string]string{"job": "billing", "consumer": "bills", "reason": "gap"},
	},
	{
		Name: "RocketflowDeadLetters", Severity: critical, For: "1m",
		Expr:        `max by (job, consumer) (rocketflow_handlers_parked_events{reason="dead"}) > 0`,
		Summary:     "{{ $labels.job }}: consumer {{ $labels.consumer }} has dead letters",
		Description: "Each holds the later events of its stream until somebody decides. Run `rocketflow redrive list`; mend the cause, then `rocketflow redrive retry`, or `rocketflow redrive discard`.",
		Fires:       []series{{`rocketflow_handlers_parked_events{job="billing",consumer="bills",reason="dead"}`, steady("1")}},
		Quiet:       []series{{`rocketflow_handlers_parked_events{job="billing",consumer="bills",reason="retry"}`, steady("1")}},
		Labels:      map[string]string{"job": "billing", "consumer": "bills"},
	},
	{
		Name: "RocketflowCriticalTime", Severity: warning, For: "10m",
		Expr:        `histogram_quantile(0.99, sum by (job, consumer, le) (rate(rocketflow_handlers_latency_seconds_bucket[5m]))) > 30`,
		Summary:     "{{ $labels.job }}: consumer {{ $labels.consumer }} handles events late",
		Description: "One in a hundred events is handled more than 30 s after it was published. Run `rocketflow doctor --only consumers`; see the duration of the handlers, the number of lanes and processes, and PostgreSQL.",
		Fires:       latency("0+1x30", "0+100x30"), Quiet: latency("0+100x30", "0+100x30"),
		Labels: map[string]string{"job": "billing", "consumer": "bills"},
	},
	{
		Name: "RocketflowConsumerLag", Severity: warning, For: "5m",
		Expr:        `max by (job, consumer, topic) (rocketflow_handlers_unread_age_seconds) > 300`,
		Summary:     "{{ $labels.job }}: consumer {{ $labels.consumer }} has not read topic {{ $labels.topic }} for long",
		Description: "The oldest unread message is older than five minutes. Run `rocketflow doctor --only consumers`, which says whether a process reads, and what mends it.",
		Fires:       []series{{`rocketflow_handlers_unread_age_seconds{job="billing",consumer="bills",topic="orders"}`, "0+60x30"}},
		Quiet:       []series{{`rocketflow_handlers_unread_age_seconds{job="billing",consumer="bills",topic="orders"}`, steady("30")}},
		Labels:      map[string]string{"job": "billing", "consumer": "bills", "topic": "orders"},
	},
	{
		Name: "RocketflowConsumerAbsent", Severity: critical, For: "5m",
		Expr:        `max by (job, code) (rocketflow_doctor_finding{code=~"consumer-absent|consumer-loss"}) > 0`,
		Summary:     "{{ $labels.job }}: consumers don't read their events ({{ $labels.code }})",
		Description: "No process consumes, or the broker deletes what is unread. Run `rocketflow doctor --only consumers`, which names the consumer and what mends it.",
		Fires:       []series{{`rocketflow_doctor_finding{job="billing",code="consumer-absent",severity="critical"}`, steady("1")}},
		Quiet:       []series{{`rocketflow_doctor_finding{job="billing",code="consumer-absent",severity="critical"}`, steady("0")}},
		Labels:      map[string]string{"job": "billing", "code": "consumer-absent"},
	},
	{
		Name: "RocketflowPaused", Severity: warning, For: "1h",
		Expr:        `max by (job, consumer, kind) (rocketflow_handlers_paused) > 0`,
		Summary:     "{{ $labels.job }}: a {{ $labels.kind }} of consumer {{ $labels.consumer }} is paused for an hour",
		Description: "An operator has paused it, and its events wait. Run `rocketflow doctor --only consumer-paused`, which says who and why; end it with `rocketflow resume`.",
		At:          "75m",
		Fires:       []series{{`rocketflow_handlers_paused{job="billing",consumer="bills",kind="stream"}`, "1+0x90"}},
		Quiet:       []series{{`rocketflow_handlers_paused{job="billing",consumer="bills",kind="stream"}`, "0+0x60 1+0x30"}},
		Labels:      map[string]string{"job": "billing", "consumer": "bills", "kind": "stream"},
	},
	{
		Name: "RocketflowCheckBacks", Severity: warning, For: "10m",
		Expr:        `sum by (job) (rate(rocketflow_outbox_checkbacks_total[5m])) > 1`,
		Summary:     "{{ $labels.job }}: the broker checks back often",
		Description: "Half messages are not ended in time: processes die, transactions take long, or ends don't reach the broker. Run `rocketflow doctor --only broker-half-messages --only postgres-long-transaction`.",
		Fires:       []series{{`rocketflow_outbox_checkbacks_total{job="shop",decision="unknown"}`, "0+300x30"}},
		Quiet:       []series{{`rocketflow_outbox_checkbacks_total{job="shop",decision="commit"}`, "0+2x30"}},
		Labels:      map[string]string{"job": "shop"},
	},
	{
		Name: "RocketflowHalfMessagesDiscarded", Severity: warning, For: "0m",
		Expr:        `sum by (job) (increase(rocketflow_outbox_half_messages_discarded_total[1h])) > 0`,
		Summary:     "{{ $labels.job }}: the broker has given up half messages",
		Description: "Nobody answered its check-backs in time. The sweep sends what committed. Run `rocketflow doctor --only broker-check-window --only outbox-producer`.",
		Fires:       []series{{`rocketflow_outbox_half_messages_discarded_total{job="shop"}`, "0+0x5 1+0x30"}},
		Quiet:       []series{{`rocketflow_outbox_half_messages_discarded_total{job="shop"}`, steady("3")}},
		Labels:      map[string]string{"job": "shop"},
	},
	{
		Name: "RocketflowTimersLate", Severity: critical, For: "2m",
		Expr:        `max by (job) (rocketflow_timeout_overdue_age_seconds) > 60`,
		Summary:     "{{ $labels.job }}: timeouts don't fire when they are due",
		Description: "The oldest is overdue for more than a minute. Run `rocketflow inspect timeouts`; see that the consumer of the timeouts' topic runs and that the broker can be reached.",
		Fires:       []series{{`rocketflow_timeout_overdue_age_seconds{job="shop"}`, "0+60x30"}},
		Quiet:       []series{{`rocketflow_timeout_overdue_age_seconds{job="shop"}`, steady("1")}},
		Labels:      map[string]string{"job": "shop"},
	},
	{
		Name: "RocketflowTimersStuck", Severity: critical, For: "1m",
		Expr:        `max by (job) (rocketflow_timeout_stuck) > 0`,
		Summary:     "{{ $labels.job }}: nobody handles the events of timeouts",
		Description: "They were sent many times, and are sent once a day from now on. Run `rocketflow inspect timeouts`; start the consumer of their topic, or see its dead letters.",
		Fires:       []series{{`rocketflow_timeout_stuck{job="shop"}`, steady("2")}},
		Quiet:       []series{{`rocketflow_timeout_stuck{job="shop"}`, steady("0")}},
		Labels:      map[string]string{"job": "shop"},
	},
	{
		Name: "RocketflowSagasLate", Severity: warning, For: "10m",
		Expr: `max by (job, saga, state) (rocketflow_saga_oldest_age_seconds) > 600
and max by (job, saga, state) (rocketflow_saga_oldest_age_seconds)
  > 2 * max by (job, saga, state) (quantile_over_time(0.95, rocketflow_saga_oldest_age_seconds[7d] offset 1h))`,
		Summary:     "{{ $labels.job }}: a saga {{ $labels.saga }} is in state {{ $labels.state }} beyond the usual time",
		Description: "The oldest one has been there for more than twice as long as is usual in a week. Run `rocketflow inspect sagas` for its key, then `rocketflow why KEY`.",
		Interval:    "5m", At: "10150m",
		Fires:  []series{{`rocketflow_saga_oldest_age_seconds{job="shop",saga="purchase",state="open"}`, "300+0x2000 2000+0x40"}},
		Quiet:  []series{{`rocketflow_saga_oldest_age_seconds{job="shop",saga="purchase",state="open"}`, "1500+0x2000 2000+0x40"}},
		Labels: map[string]string{"job": "shop", "saga": "purchase", "state": "open"},
	},
	{
		Name: "RocketflowEventsMissing", Severity: critical, For: "2m",
		Expr:        `sum by (service, consumer) (rocketflow_reconciliation_events{state="missing"}) > 0`,
		Summary:     "consumer {{ $labels.consumer }} of {{ $labels.service }} misses events",
		Description: "The broker confirmed them, and the consumer has no record of them. Run `rocketflow reconcile`, which lists them, and with --mend sends what was lost again.",
		Fires:       []series{{`rocketflow_reconciliation_events{job="shop",service="billing",consumer="bills",state="missing"}`, steady("1")}},
		Quiet:       []series{{`rocketflow_reconciliation_events{job="shop",service="billing",consumer="bills",state="missing"}`, steady("0")}, {`rocketflow_reconciliation_events{job="shop",service="billing",consumer="bills",state="waiting"}`, steady("9")}},
		Labels:      map[string]string{"service": "billing", "consumer": "bills"},
	},
	{
		Name: "RocketflowReconciliationFails", Severity: warning, For: "5m",
		Expr: `sum by (job) (increase(rocketflow_reconciliation_passes_total{outcome="failed"}[15m])) > 0
unless sum by (job) (increase(rocketflow_reconciliation_passes_total{outcome="ok"}[15m])) > 0`,
		Summary:     "{{ $labels.job }}: the reconciliation fails",
		Description: "Until it succeeds nobody knows whether events are missing. Run `rocketflow reconcile`, which says why it can't.",
		Fires:       []series{{`rocketflow_reconciliation_passes_total{job="shop",outcome="failed"}`, "0+1x30"}, {`rocketflow_reconciliation_passes_total{job="shop",outcome="ok"}`, steady("9")}},
		Quiet:       []series{{`rocketflow_reconciliation_passes_total{job="shop",outcome="failed"}`, "0+1x30"}, {`rocketflow_reconciliation_passes_total{job="shop",outcome="ok"}`, "0+1x30"}},
		Labels:      map[string]string{"job": "shop"},
	},
	{
		Name: "RocketflowReconciliationIncomplete", Severity: warning, For: "1h",
		Expr:        `max by (job, what) (rocketflow_reconciliation_uncompared{what!="types"}) > 0`,
		Summary:     "{{ $labels.job }}: the reconciliation doesn't compare everything",
		Description: "It can't read the schema of a consumer, can't learn from the broker whether events are missing, or has more open events than it looks at ({{ $labels.what }}), so events may be missing unseen. Run `rocketflow reconcile`, which says why.",
		At:          "90m",
		Fires:       []series{{`rocketflow_reconciliation_uncompared{job="shop",what="schemas"}`, "1+0x100"}},
		Quiet:       []series{{`rocketflow_reconciliation_uncompared{job="shop",what="types"}`, "1+0x100"}, {`rocketflow_reconciliation_uncompared{job="shop",what="schemas"}`, "0+0x100"}},
		Labels:      map[string]string{"job": "shop", "what": "schemas"},
	},
	{
		Name: "RocketflowDoctorCritical", Severity: critical, For: "5m",
		Expr:        `max by (job, code) (rocketflow_doctor_finding{severity="critical",code!~"consumer-absent|consumer-loss|consumer-dead-letters"}) > 0`,
		Summary:     "{{ $labels.job }}: the doctor found {{ $labels.code }}",
		Description: "A promise doesn't hold, or something stands still. Run `rocketflow doctor`, which prints what mends it; docs/doctor.md#{{ $labels.code }} says why.",
		Fires:       []series{{`rocketflow_doctor_finding{job="shop",code="postgres-rights",severity="critical"}`, steady("1")}},
		Quiet:       []series{{`rocketflow_doctor_finding{job="shop",code="consumer-dead-letters",severity="critical"}`, steady("1")}, {`rocketflow_doctor_finding{job="shop",code="postgres-rights",severity="critical"}`, steady("0")}},
		Labels:      map[string]string{"job": "shop", "code": "postgres-rights"},
	},
	{
		Name: "RocketflowDoctorWarning", Severity: warning, For: "1h",
		Expr:        `max by (job, code) (rocketflow_doctor_finding{severity="warning",code!="consumer-paused"}) > 0`,
		Summary:     "{{ $labels.job }}: the doctor found {{ $labels.code }}",
		Description: "A promise doesn't hold under a fault that may come. Run `rocketflow doctor`, which prints what mends it; docs/doctor.md#{{ $labels.code }} says why.",
		At:          "75m",
		Fires:       []series{{`rocketflow_doctor_finding{job="shop",code="broker-durability",severity="warning"}`, "1+0x90"}},
		Quiet:       []series{{`rocketflow_doctor_finding{job="shop",code="broker-durability",severity="warning"}`, "0+0x60 1+0x30"}},
		Labels:      map[string]string{"job": "shop", "code": "broker-durability"},
	},
	{
		Name: "RocketflowDoctorCannotLook", Severity: warning, For: "30m",
		Expr:        `max by (job, code) (rocketflow_doctor_unknown) > 0`,
		Summary:     "{{ $labels.job }}: the doctor can't look at {{ $labels.code }}",
		Description: "A server is away or a right is missing, so that nobody knows whether all is well. Run `rocketflow doctor`, which names the right.",
		At:          "45m",
		Fires:       []series{{`rocketflow_doctor_unknown{job="shop",code="broker-disk"}`, "1+0x60"}},
		Quiet:       []series{{`rocketflow_doctor_unknown{job="shop",code="broker-disk"}`, "0+0x30 1+0x10 0+0x20"}},
		Labels:      map[string]string{"job": "shop", "code": "broker-disk"},
	},
	{
		Name: "RocketflowBrokerDown", Severity: warning, For: "2m",
		Expr:        `max by (job, broker) (rocketflow_broker_up) == 0`,
		Summary:     "{{ $labels.job }}: no process is connected to broker {{ $labels.broker }}",
		Description: "Transactions go on and their events are owed; consumers wait. Run `rocketflow doctor --only broker-master`. Don't restart services: it ends no outage.",
		Fires:       []series{{`rocketflow_broker_up{job="shop",broker="broker-a"}`, steady("0")}},
		Quiet:       []series{{`rocketflow_broker_up{job="shop",broker="broker-a",instance="a"}`, steady("0")}, {`rocketflow_broker_up{job="shop",broker="broker-a",instance="b"}`, steady("1")}},
		Labels:      map[string]string{"job": "shop", "broker": "broker-a"},
	},
	{
		Name: "RocketflowStoredLessSafely", Severity: warning, For: "0m",
		Expr:        `sum by (job, broker, reason) (increase(rocketflow_broker_stored_less_safely_total[10m])) > 0`,
		Summary:     "{{ $labels.job }}: broker {{ $labels.broker }} stores messages less safely than it is set to ({{ $labels.reason }})",
		Description: "They would be lost with the broker's disk or memory now. Run `rocketflow doctor --only broker-durability`; see the broker's disk and its slaves.",
		Fires:       []series{{`rocketflow_broker_stored_less_safely_total{job="shop",broker="broker-a",reason="flush timeout"}`, "0+1x30"}},
		Quiet:       []series{{`rocketflow_broker_stored_less_safely_total{job="shop",broker="broker-a",reason="flush timeout"}`, steady("4")}},
		Labels:      map[string]string{"job": "shop", "broker": "broker-a", "reason": "flush timeout"},
	},
	{
		Name: "RocketflowConsumersStalled", Severity: warning, For: "5m",
		Expr:        `sum by (job, consumer) (increase(rocketflow_handlers_stalls_total[5m])) > 0`,
		Summary:     "{{ $labels.job }}: consumer {{ $labels.consumer }} waits for PostgreSQL",
		Description: "Its lanes can't use PostgreSQL and try again; nothing is lost. Run `rocketflow doctor --only postgres`.",
		Fires:       []series{{`rocketflow_handlers_stalls_total{job="billing",consumer="bills"}`, "0+1x30"}},
		Quiet:       []series{{`rocketflow_handlers_stalls_total{job="billing",consumer="bills"}`, steady("4")}},
		Labels:      map[string]string{"job": "billing", "consumer": "bills"},
	},
}

// latency are the buckets of a histogram of the critical time: events within 30 s, and all.
func latency(fast, all string) []series {
	const name = `rocketflow_handlers_latency_seconds_bucket{job="billing",consumer="bills",le=`
	return []series{{name + `"30"}`, fast}, {name + `"60"}`, all}, {name + `"+Inf"}`, all}}
}
