package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow/doctor"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// The exit code says whether there are findings, or something is not known; what is not known is never shown as ok.
func TestDoctor(t *testing.T) {
	t.Parallel()
	s := seed(t)
	mq := rocketmqtest.RunT(t)
	at := " --namesrv " + mq.Addr()

	code, stdout, stderr := s.rf("doctor --only postgres-primary --only broker-check-window --all" + at)
	if code != exitOK || !strings.Contains(stdout, "0 findings, 0 not known, 2 ok") || stderr != "" {
		t.Errorf("all is well: %d\n%s%s", code, stdout, stderr)
	}
	code, stdout, _ = s.rf("doctor --only broker-durability" + at)
	for _, want := range []string{"WARNING  broker-durability  broker broker-a", "  seen    ASYNC_FLUSH", "  needed  SYNC_FLUSH", "  mend    # in broker.conf", "  see     docs/doctor.md#broker-durability", "1 finding, 0 not known, 0 ok"} {
		if !strings.Contains(strings.Join(strings.Fields(stdout), " "), strings.Join(strings.Fields(want), " ")) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	if code != exitFailure {
		t.Errorf("a finding: exit code %d", code)
	}
	code, stdout, _ = s.rf("doctor --only broker --skip broker-name-servers --namesrv 127.0.0.1:1")
	if code != exitNotKnown || strings.Count(stdout, "NOT KNOWN") != 2 || !strings.Contains(stdout, "broker-check-window, ") || !strings.Contains(stdout, "0 findings") || !strings.Contains(stdout, " 0 ok") {
		t.Errorf("a broker that is away: %d\n%s", code, stdout)
	}
	code, stdout, _ = runLine("doctor --only broker-durability --only postgres-primary --json --schema " + s.schema + at)
	var report doctor.Report
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != exitFailure || len(report.Results) != 2 || report.Results[0].Status != doctor.OK || report.Results[1].Status != doctor.Finding {
		t.Errorf("JSON: %d, %v\n%s", code, err, stdout)
	}
	for _, line := range []string{"doctor --only nonsense" + at, "doctor --saga order" + at, "doctor --saga order=x" + at, "doctor --timeout -1s" + at, "doctor --namesrv nonsense"} {
		if code, _, stderr := s.rf(line); code != exitUsage || stderr == "" {
			t.Errorf("%s: %d, %s", line, code, stderr)
		}
	}
	if code, stdout, _ := runLine("doctor --list"); code != exitOK || !strings.Contains(stdout, "saga-version") {
		t.Errorf("list: %d\n%s", code, stdout)
	}
}

// Behind a proxy what isn't known comes once with the profile's reason and what to do instead.
func TestDoctorBehindAProxy(t *testing.T) {
	t.Setenv("ROCKETMQ_PROFILE", "Proxy5")
	mq := rocketmqtest.RunT(t, rocketmqtest.Config{Proxy: true})
	code, stdout, _ := runLine("doctor --pre --only broker --namesrv " + mq.ProxyAddr())
	if code != exitNotKnown || strings.Count(stdout, "NOT KNOWN") != 1 || !strings.Contains(stdout, "profile proxy5: the cluster can't be asked for its brokers") ||
		!strings.Contains(stdout, "rocketflow doctor --only broker --namesrv <name servers>") || !strings.Contains(stdout, " 0 ok") {
		t.Errorf("exit code %d\n%s", code, stdout)
	}
	t.Setenv("ROCKETMQ_PROFILE", "nonsense")
	if code, _, stderr := runLine("doctor --pre --only broker --namesrv " + mq.ProxyAddr()); code == exitNotKnown || !strings.Contains(stderr, "ROCKETMQ_PROFILE") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}

// The overview has at most three findings of one check; the findings follow in full.
func TestDoctorOverview(t *testing.T) {
	t.Parallel()
	var r doctor.Report
	add := func(n int, severity doctor.Severity, code string) {
		for i := range n {
			seen := fmt.Sprintf("%s %s %d", code, severity, i)
			r.Results = append(r.Results, doctor.Result{Code: code, Severity: severity, Group: doctor.Flows, Status: doctor.Finding, Observed: seen})
		}
	}
	add(5, doctor.Warning, "saga-idle")
	add(3, doctor.Warning, "stream-gap")
	add(1, doctor.Critical, "saga-version")
	var out strings.Builder
	if err := (&doctorFlags{}).print(&out, &r); err != nil {
		t.Fatal(err)
	}
	overview, findings, _ := strings.Cut(out.String(), "\n\n")
	var lines []string
	for line := range strings.Lines(overview) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"CRITICAL saga-version saga-version critical 0",
		"WARNING saga-idle saga-idle warning 0", "WARNING saga-idle saga-idle warning 1", "WARNING saga-idle saga-idle warning 2", "WARNING saga-idle … and 2 more",
		"WARNING stream-gap stream-gap warning 0", "WARNING stream-gap stream-gap warning 1", "WARNING stream-gap stream-gap warning 2",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("the overview is\n%s", overview)
	}
	if n := strings.Count(findings, "  seen    "); n != 9 || strings.Contains(findings, "more") {
		t.Errorf("%d findings follow:\n%s", n, findings)
	}
}

// The commands that mend something exist, with these flags.
func TestDoctorNamesCommandsThatExist(t *testing.T) {
	t.Parallel()
	s := seed(t)
	s.seedEvents(t)
	s.seedSaga(t, "4711", false)
	s.exec(t, "UPDATE parked SET parked_at = now() - interval '1 day'")
	s.exec(t, "UPDATE timeout SET due_at = now() - interval '1 day', stuck_at = now()")
	s.exec(t, "INSERT INTO outbox_rejected_topic (topic, reason, next_at) VALUES ('orders', 'topic not found', now())")
	s.exec(t, "ALTER TABLE saga_waiting ADD COLUMN extra text") // what is new is no finding
	code, stdout, stderr := runLine("doctor --skip postgres --skip broker --json --schema " + s.schema + " --database " + s.pool.Config().ConnString())
	var report doctor.Report
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != exitFailure {
		t.Fatalf("%d, %v\n%s%s", code, err, stdout, stderr)
	}
	commands := 0
	for _, f := range report.Findings() {
		for line := range strings.Lines(f.Mend) {
			words := strings.Fields(line)
			if len(words) == 0 || words[0] != "rocketflow" {
				continue
			}
			commands++
			cmd, rest, err := newRoot().Find(words[1:])
			if err == nil {
				err = cmd.ParseFlags(rest)
			}
			if err != nil || !cmd.Runnable() || cmd.HasSubCommands() {
				t.Errorf("%s: %s: %v", f.Code, line, err)
			}
		}
	}
	if commands < 6 {
		t.Errorf("only %d commands in %s", commands, stdout)
	}
}
