package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rocketflow/rocketflow/doctor"
	"github.com/rocketflow/rocketflow/metrics"
)

// The committed files are those that the lists make.
func TestFilesAreCurrent(t *testing.T) {
	t.Parallel()
	for name, want := range files() {
		got, err := os.ReadFile(filepath.Join("..", name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("deploy/%s is not current: run go generate ./deploy/monitoring (%v)", name, err)
		}
	}
}

// recorder records what is registered.
type recorder map[string][]string // labels by the name of a metric

var described = regexp.MustCompile(`fqName: "(\w+)".* variableLabels: \{([^}]*)\}`)

func (r recorder) Register(c prometheus.Collector) error {
	r.MustRegister(c)
	return nil
}

func (r recorder) MustRegister(list ...prometheus.Collector) {
	for _, c := range list {
		_, histogram := c.(*prometheus.HistogramVec)
		descs := make(chan *prometheus.Desc, 100)
		c.Describe(descs)
		close(descs)
		for d := range descs {
			match := described.FindStringSubmatch(d.String())
			labels := strings.FieldsFunc(match[2], func(r rune) bool { return r == ',' || r == ' ' })
			if !histogram {
				r[match[1]] = labels
				continue
			}
			r[match[1]+"_bucket"] = append(slices.Clone(labels), "le")
			r[match[1]+"_sum"], r[match[1]+"_count"] = labels, labels
		}
	}
}

func (r recorder) Unregister(prometheus.Collector) bool { return false }

// registered returns all metrics of rocketflow with their labels.
func registered() recorder {
	r := recorder{}
	m := metrics.New(r)
	m.Outbox()
	m.Handlers()
	m.Timeout()
	m.Saga()
	m.RocketMQ()
	m.Reconciliation()
	m.ObserveBacklog(nil)
	m.ObserveWork(nil)
	m.ObserveUnread(nil, nil)
	m.ObserveDoctor(nil)
	return r
}

// selector is a selector of series in an expression.
type selector struct {
	Metric   string
	Matchers []matcher
}

// matcher is a condition on a label.
type matcher struct{ Label, Op, Value string }

var (
	selecting = regexp.MustCompile(`\b(rocketflow_\w+)(?:\{([^}]*)\})?`)
	matching  = regexp.MustCompile(`(\w+)(=~|!~|!=|=)"([^"]*)"`)
	grouping  = regexp.MustCompile(`\bby \(([^)]*)\)`)
	inText    = regexp.MustCompile(`\$labels\.(\w+)|\{\{(\w+)\}\}`)
)

// selectors returns the selectors of an expression.
func selectors(expr string) (list []selector) {
	for _, s := range selecting.FindAllStringSubmatch(expr, -1) {
		found := selector{Metric: s[1]}
		for _, m := range matching.FindAllStringSubmatch(s[2], -1) {
			found.Matchers = append(found.Matchers, matcher{m[1], m[2], m[3]})
		}
		list = append(list, found)
	}
	return list
}

// matches reports whether a series is selected.
func (s selector) matches(metric string, labels map[string]string) bool {
	return metric == s.Metric && !slices.ContainsFunc(s.Matchers, func(m matcher) bool {
		equal := labels[m.Label] == m.Value
		if strings.HasSuffix(m.Op, "~") {
			equal = regexp.MustCompile("^(?:" + m.Value + ")$").MatchString(labels[m.Label])
		}
		return equal == strings.HasPrefix(m.Op, "!")
	})
}

// checkExpr fails the test unless an expression uses metrics and labels that exist. texts may use the labels that are left.
func checkExpr(t *testing.T, all recorder, where, expr string, texts ...string) {
	t.Helper()
	var groups []string
	for _, match := range grouping.FindAllStringSubmatch(expr, -1) {
		groups = append(groups, strings.Split(strings.ReplaceAll(match[1], " ", ""), ",")...)
	}
	found := selectors(expr)
	if len(found) == 0 || len(groups) == 0 {
		t.Errorf("%s: no metric or no labels in %q", where, expr)
	}
	for _, s := range found {
		labels, exists := all[s.Metric]
		if !exists {
			t.Errorf("%s: no metric %s", where, s.Metric)
			continue
		}
		used := slices.Clone(groups)
		for _, m := range s.Matchers {
			used = append(used, m.Label)
		}
		for _, label := range used {
			if label != "job" && !slices.Contains(labels, label) {
				t.Errorf("%s: %s has no label %s", where, s.Metric, label)
			}
		}
	}
	for _, text := range texts {
		for _, match := range inText.FindAllStringSubmatch(text, -1) {
			if label := match[1] + match[2]; !slices.Contains(groups, label) {
				t.Errorf("%s: %q has the label %s, which the expression hasn't left", where, text, label)
			}
		}
	}
}

// Each metric and label of a rule or a panel is one that rocketflow registers.
func TestMetricsExist(t *testing.T) {
	t.Parallel()
	all := registered()
	if len(all) < 50 {
		t.Fatalf("only %d metrics", len(all))
	}
	names := map[string]bool{}
	for _, a := range alerts {
		checkExpr(t, all, a.Name, a.Expr, a.Summary, a.Description)
		for _, s := range slices.Concat(a.Fires, a.Quiet) {
			for _, found := range selectors(s.Name) {
				for _, m := range found.Matchers {
					if labels, exists := all[found.Metric]; !exists || m.Label != "job" && m.Label != "instance" && !slices.Contains(labels, m.Label) {
						t.Errorf("%s is tested with %s, which doesn't exist", a.Name, s.Name)
					}
				}
			}
		}
		if names[a.Name] || !strings.Contains(a.Description, "`rocketflow ") || a.Severity != critical && a.Severity != warning || len(a.Fires) == 0 || len(a.Quiet) == 0 {
			t.Errorf("%s: want a name of its own, a command, a severity, and tests", a.Name)
		}
		names[a.Name] = true
		for _, s := range selectors(a.Expr) {
			for _, m := range s.Matchers {
				for code := range strings.SplitSeq(m.Value, "|") {
					if m.Label == "code" && !slices.ContainsFunc(doctor.Checks(), func(c doctor.Check) bool { return c.Code == code }) {
						t.Errorf("%s: the doctor has no check %s", a.Name, code)
					}
				}
			}
		}
	}
	for _, r := range dashboardRows {
		for _, p := range r.Panels {
			for _, q := range p.Queries {
				checkExpr(t, all, p.Title, q.Expr, q.Legend)
			}
		}
	}
}

// The dashboard is JSON whose panels have ids of their own and don't overlap.
func TestDashboard(t *testing.T) {
	t.Parallel()
	var d struct {
		Panels []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
		}
	}
	if err := json.Unmarshal(dashboard(), &d); err != nil {
		t.Fatal(err)
	}
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("two panels have the id %d", p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" || x >= gridWidth {
					t.Fatalf("%s has no room beside %q", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
	}
}

// The runbook has an entry for each alert, and no other.
func TestRunbookHasEachAlert(t *testing.T) {
	t.Parallel()
	runbook, err := os.ReadFile("../../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	entries := strings.Split(string(runbook), "\n## ")[1:]
	var got, want []string
	for _, entry := range entries {
		name, text, _ := strings.Cut(entry, "\n")
		got = append(got, name)
		for _, part := range []string{"**Means.** ", "**Look first.** `rocketflow ", "**Mends.** ", "**Harmless.** "} {
			if !strings.Contains(text, "\n"+part) {
				t.Errorf("the entry of %s has no %q", name, part)
			}
		}
	}
	for _, a := range alerts {
		want = append(want, a.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the runbook has entries of %q, want %q", got, want)
	}
}
