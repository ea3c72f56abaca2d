package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

const head = "# Made by `go generate ./deploy/monitoring` from the list of alerts there: don't edit.\n"

// quoted returns text as a scalar of YAML, which includes JSON.
func quoted(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string can be encoded
	return strings.TrimSuffix(b.String(), "\n")
}

// rules returns the alert rules for Prometheus.
func rules() []byte {
	var b bytes.Buffer
	b.WriteString(head + "groups:\n  - name: rocketflow\n    rules:\n")
	for _, a := range alerts {
		fmt.Fprintf(&b, "      - alert: %s\n        expr: |-\n          %s\n        for: %s\n", a.Name, strings.ReplaceAll(a.Expr, "\n", "\n          "), a.For)
		fmt.Fprintf(&b, "        labels:\n          severity: %s\n        annotations:\n", a.Severity)
		fmt.Fprintf(&b, "          summary: %s\n          description: %s\n          runbook_url: %s\n", quoted(a.Summary), quoted(a.Description), a.runbook())
	}
	return b.Bytes()
}

// ruleTests returns the tests of the rules for `promtool test rules`.
func ruleTests() []byte {
	var b bytes.Buffer
	b.WriteString(head + "rule_files: [rules.yaml]\nevaluation_interval: 1m\ntests:\n")
	for _, a := range alerts {
		writeTest(&b, a, "fires", a.Fires, true)
		writeTest(&b, a, "is quiet", a.Quiet, false)
	}
	return b.Bytes()
}

func writeTest(b *bytes.Buffer, a alert, what string, input []series, fires bool) {
	fmt.Fprintf(b, "  - name: %s %s\n    interval: %s\n    input_series:\n", a.Name, what, cmp.Or(a.Interval, "1m"))
	for _, s := range input {
		fmt.Fprintf(b, "      - series: %s\n        values: %s\n", quoted(s.Name), quoted(s.Values))
	}
	fmt.Fprintf(b, "    alert_rule_test:\n      - eval_time: %s\n        alertname: %s\n", cmp.Or(a.At, "15m"), a.Name)
	if !fires {
		b.WriteString("        exp_alerts: []\n")
		return
	}
	b.WriteString("        exp_alerts:\n")
	writeExpected(b, a, a.Labels)
}

// writeExpected writes the alert with these labels.
func writeExpected(b *bytes.Buffer, a alert, labels map[string]string) {
	fmt.Fprintf(b, "          - exp_labels:\n              severity: %s\n", a.Severity)
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		fmt.Fprintf(b, "              %s: %s\n", name, quoted(labels[name]))
	}
	render := func(text string) string {
		for name, value := range labels {
			text = strings.ReplaceAll(text, "{{ $labels."+name+" }}", value)
		}
		return quoted(text)
	}
	fmt.Fprintf(b, "            exp_annotations:\n              summary: %s\n              description: %s\n              runbook_url: %s\n", render(a.Summary), render(a.Description), a.runbook())
}
