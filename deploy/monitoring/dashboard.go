package main

import (
	"encoding/json"
	"strings"
)

// row is a row of the dashboard.
type row struct {
	Title  string
	Panels []panel
}

// panel is a graph. In an expression, $ is the selection of services.
type panel struct {
	Title, Unit string
	Queries     []query
}

// query is a line of a graph. Legend may have {{label}}.
type query struct{ Expr, Legend string }

// Units of Grafana.
const (
	seconds   = "s"
	count     = "short"
	perSecond = "ops"
)

// dashboardRows are the rows of the dashboard, in the order of the data's way.
var dashboardRows = []row{
	{"Overview", []panel{
		{"Oldest owed event", seconds, []query{{`max by (job) (rocketflow_outbox_backlog_age_seconds{$})`, "{{job}}"}}},
		{"Critical time, 99 of 100", seconds, []query{{`histogram_quantile(0.99, sum by (consumer, le) (rate(rocketflow_handlers_latency_seconds_bucket{$}[$__rate_interval])))`, "{{consumer}}"}}},
		{"Dead letters", count, []query{{`max by (job, consumer) (rocketflow_handlers_parked_events{reason="dead",$})`, "{{job}} {{consumer}}"}}},
		{"Events missing", count, []query{{`sum by (service, consumer) (rocketflow_reconciliation_events{state="missing",$})`, "{{service}} {{consumer}}"}}},
		{"Oldest overdue timeout", seconds, []query{{`max by (job) (rocketflow_timeout_overdue_age_seconds{$})`, "{{job}}"}}},
		{"Findings of the doctor", count, []query{{`max by (job, code, severity) (rocketflow_doctor_finding{$}) > 0`, "{{severity}} {{code}} {{job}}"}, {`max by (job, code) (rocketflow_doctor_unknown{$}) > 0`, "not known {{code}} {{job}}"}}},
	}},
	{"Outbox", []panel{
		{"Events recorded", perSecond, []query{{`sum by (topic) (rate(rocketflow_outbox_events_recorded_total{$}[$__rate_interval]))`, "{{topic}}"}}},
		{"Events sent, by path", perSecond, []query{{`sum by (path) (rate(rocketflow_outbox_events_sent_total{$}[$__rate_interval]))`, "{{path}}"}}},
		{"Transactions", perSecond, []query{{`sum by (outcome) (rate(rocketflow_outbox_transactions_total{$}[$__rate_interval]))`, "{{outcome}}"}}},
		{"Owed events", count, []query{{`max by (job) (rocketflow_outbox_backlog_events{$})`, "{{job}}"}}},
		{"Half message stored, 99 of 100", seconds, []query{{`histogram_quantile(0.99, sum by (job, le) (rate(rocketflow_outbox_half_message_prepare_duration_seconds_bucket{$}[$__rate_interval])))`, "{{job}}"}}},
		{"Check-backs", perSecond, []query{{`sum by (decision) (rate(rocketflow_outbox_checkbacks_total{$}[$__rate_interval]))`, "{{decision}}"}}},
		{"Relay path and breaker", count, []query{{`max by (job) (rocketflow_outbox_relay_path_active{$})`, "relay {{job}}"}, {`max by (job) (rocketflow_outbox_breaker_open{$})`, "breaker {{job}}"}}},
		{"Rejected events", perSecond, []query{{`sum by (topic) (rate(rocketflow_outbox_events_rejected_total{$}[$__rate_interval]))`, "{{topic}}"}}},
		{"Passes of the sweep", perSecond, []query{{`sum by (job) (rate(rocketflow_outbox_sweep_duration_seconds_count{$}[$__rate_interval]))`, "{{job}}"}}},
	}},
	{"Consumers", []panel{
		{"Events, by outcome", perSecond, []query{{`sum by (consumer, outcome) (rate(rocketflow_handlers_events_total{$}[$__rate_interval]))`, "{{consumer}} {{outcome}}"}}},
		{"Duration of handlers, 99 of 100", seconds, []query{{`histogram_quantile(0.99, sum by (consumer, type, le) (rate(rocketflow_handlers_handler_duration_seconds_bucket{$}[$__rate_interval])))`, "{{consumer}} {{type}}"}}},
		{"Parked events", count, []query{{`max by (job, consumer, reason) (rocketflow_handlers_parked_events{$})`, "{{job}} {{consumer}} {{reason}}"}}},
		{"Oldest parked event", seconds, []query{{`max by (job, consumer, reason) (rocketflow_handlers_parked_age_seconds{$})`, "{{job}} {{consumer}} {{reason}}"}}},
		{"Unread messages", count, []query{{`max by (job, consumer, topic) (rocketflow_handlers_unread_messages{$})`, "{{job}} {{consumer}} {{topic}}"}}},
		{"Oldest unread message", seconds, []query{{`max by (job, consumer, topic) (rocketflow_handlers_unread_age_seconds{$})`, "{{job}} {{consumer}} {{topic}}"}}},
		{"Panics, stalls, unresponsive handlers", perSecond, []query{
			{`sum by (consumer) (rate(rocketflow_handlers_panics_total{$}[$__rate_interval]))`, "panics {{consumer}}"},
			{`sum by (consumer) (rate(rocketflow_handlers_stalls_total{$}[$__rate_interval]))`, "stalls {{consumer}}"},
			{`sum by (consumer) (rate(rocketflow_handlers_unresponsive_total{$}[$__rate_interval]))`, "unresponsive {{consumer}}"}}},
		{"Reconciliation", count, []query{{`sum by (consumer, state) (rocketflow_reconciliation_events{$})`, "{{consumer}} {{state}}"}}},
		{"Not reconciled", count, []query{{`max by (what) (rocketflow_reconciliation_uncompared{$})`, "{{what}}"}}},
	}},
	{"Sagas and timeouts", []panel{
		{"Running sagas", count, []query{{`max by (saga, state) (rocketflow_saga_running{$})`, "{{saga}} {{state}}"}}},
		{"Oldest saga in its state", seconds, []query{{`max by (saga, state) (rocketflow_saga_oldest_age_seconds{$})`, "{{saga}} {{state}}"}}},
		{"Transitions", perSecond, []query{{`sum by (saga, to, cause) (rate(rocketflow_saga_transitions_total{$}[$__rate_interval]))`, "{{saga}} {{to}} {{cause}}"}}},
		{"Timeouts", count, []query{{`max by (job) (rocketflow_timeout_armed{$})`, "armed {{job}}"}, {`max by (job) (rocketflow_timeout_overdue{$})`, "overdue {{job}}"}, {`max by (job) (rocketflow_timeout_stuck{$})`, "stuck {{job}}"}}},
		{"Changes of timeouts", perSecond, []query{{`sum by (change) (rate(rocketflow_timeout_changes_total{$}[$__rate_interval]))`, "{{change}}"}}},
		{"Lateness of timeouts, 99 of 100", seconds, []query{{`histogram_quantile(0.99, sum by (job, le) (rate(rocketflow_timeout_lateness_seconds_bucket{$}[$__rate_interval])))`, "{{job}}"}}},
	}},
	{"Broker", []panel{
		{"Connected", count, []query{{`max by (job, broker) (rocketflow_broker_up{$})`, "{{job}} {{broker}}"}}},
		{"Deliveries held, consumers restarted", perSecond, []query{{`sum by (group) (rate(rocketflow_broker_deliveries_held_total{$}[$__rate_interval]))`, "held {{group}}"}, {`sum by (job) (rate(rocketflow_broker_consumer_restarts_total{$}[$__rate_interval]))`, "restarted {{job}}"}}},
		{"Stored less safely", perSecond, []query{{`sum by (broker, reason) (rate(rocketflow_broker_stored_less_safely_total{$}[$__rate_interval]))`, "{{broker}} {{reason}}"}}},
	}},
}

// Sizes of the dashboard, in Grafana's grid.
const (
	gridWidth   = 24
	panelWidth  = 8
	panelHeight = 8
)

// object is an object of JSON.
type object = map[string]any

// dashboard returns the dashboard for Grafana.
func dashboard() []byte {
	source := object{"type": "prometheus", "uid": "${datasource}"}
	panels := []object{}
	y := 0
	for _, r := range dashboardRows {
		panels = append(panels, object{"id": len(panels) + 1, "type": "row", "title": r.Title, "collapsed": false, "panels": []object{}, "gridPos": object{"x": 0, "y": y, "w": gridWidth, "h": 1}})
		y++
		for i, p := range r.Panels {
			targets := []object{}
			for n, q := range p.Queries {
				targets = append(targets, object{"refId": string(rune('A' + n)), "datasource": source, "expr": q.promQL(), "legendFormat": q.Legend})
			}
			panels = append(panels, object{
				"id": len(panels) + 1, "type": "timeseries", "title": p.Title, "datasource": source, "targets": targets,
				"fieldConfig": object{"defaults": object{"unit": p.Unit, "min": 0}, "overrides": []object{}},
				"options":     object{"legend": object{"displayMode": "list", "placement": "bottom"}, "tooltip": object{"mode": "multi"}},
				"gridPos":     object{"x": i % (gridWidth / panelWidth) * panelWidth, "y": y + i/(gridWidth/panelWidth)*panelHeight, "w": panelWidth, "h": panelHeight},
			})
		}
		y += (len(r.Panels) + 2) / (gridWidth / panelWidth) * panelHeight
	}
	content, err := json.MarshalIndent(object{
		"title": "rocketflow", "uid": "rocketflow", "tags": []string{"rocketflow"}, "schemaVersion": 39, "version": 1, "editable": true,
		"time": object{"from": "now-1h", "to": "now"}, "refresh": "10s", "panels": panels,
		"templating": object{"list": []object{
			{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
			{"name": "job", "type": "query", "datasource": source, "query": "label_values(rocketflow_outbox_backlog_events, job)", "label": "Service",
				"multi": true, "includeAll": true, "allValue": ".*", "refresh": 2, "current": object{"text": "All", "value": "$__all"}},
		}},
	}, "", "  ")
	if err != nil {
		panic(err) // maps of strings and numbers can be encoded
	}
	return append(content, '\n')
}

// promQL returns the expression with the selection of services.
func (q query) promQL() string {
	return strings.NewReplacer("{$}", `{job=~"$job"}`, ",$}", `,job=~"$job"}`).Replace(q.Expr)
}
