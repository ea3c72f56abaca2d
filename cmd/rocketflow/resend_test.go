package main

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/testcert"
)

// Resend sends what the flags select to a broker that has lost everything.
func TestResendSendsWhatIsSelected(t *testing.T) {
	t.Parallel()
	s := seed(t)
	e := s.seedEvents(t)
	server := rocketmqtest.RunT(t)
	server.CreateTopic("orders", 2)
	to := " --namesrv " + server.Addr()
	for _, step := range []struct {
		line, says string
		total      int
	}{
		{"resend --topic payments", "sent 0 events again", 0},
		{"resend --until 1h", "sent 0 events again", 0},
		{"resend --subject 4711 --since 1h --limit 2", "sent 2 events again", 2},
		{"resend --all --json", `"sent": 3`, 5},
	} {
		code, stdout, stderr := s.rf(step.line + to)
		if code != exitOK || !strings.Contains(stdout, step.says) {
			t.Errorf("%s: exit code %d: %s%s, want %q", step.line, code, stdout, stderr, step.says)
		}
		if n := len(server.Messages("orders")); n != step.total {
			t.Errorf("%s: the broker has %d messages, want %d", step.line, n, step.total)
		}
	}
	if got := server.Messages("orders")[0].Properties["CE_id"]; got != e.first.ID.String() {
		t.Errorf("the first is %s, want %s", got, e.first.ID)
	}
}

// A wrong command line sends nothing.
func TestResendRefusesWrongCommandLines(t *testing.T) {
	t.Parallel()
	s := seed(t)
	for line, want := range map[string]string{
		"resend":                              "set a filter, or --all",
		"resend --limit 5":                    "set a filter, or --all",
		"resend --all --topic orders":         "exclude each other",
		"resend --topic=":                     "--topic is empty",
		"resend --since yesterday":            "is not a time",
		"resend --since 1h --until 2h":        "not before",
		"resend --all --rate 0":               "--rate 0",
		"resend --all --limit 0":              "--limit 0",
		"resend --since -1h":                  "is not a time",
		"resend --all --limit -1 --namesrv x": "--limit -1",
	} {
		if code, _, stderr := s.rf(line); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit code %d: %s, want %q", line, code, stderr, want)
		}
	}
}

// The variables ROCKETMQ_TLS_… make resend use TLS.
func TestResendOverTLS(t *testing.T) { // not parallel: it sets variables
	s := seed(t)
	s.seedEvents(t)
	authority := testcert.NewAuthority(t)
	certificate := authority.Issue(t, testcert.Leaf{Names: []string{"127.0.0.1"}}).TLS(t)
	server := rocketmqtest.RunT(t, rocketmqtest.Config{TLS: &tls.Config{
		Certificates: []tls.Certificate{certificate}, ClientCAs: authority.Pool(), ClientAuth: tls.RequireAndVerifyClientCert,
	}})
	server.CreateTopic("orders", 2)
	dir := t.TempDir()
	ca, _ := authority.Files(t, dir, "ca")
	own, key := authority.Issue(t, testcert.Leaf{}).Files(t, dir, "own")
	for _, step := range []struct{ variable, value, says string }{
		{"", "", "takes TLS connections only"},
		{"ROCKETMQ_TLS_CA", dir + "/missing", "ROCKETMQ_TLS_CA: file " + dir + "/missing can't be read"},
		{"ROCKETMQ_TLS_CA", ca, "refuses the client's certificate"},
		{"ROCKETMQ_TLS_CERT", own, "ROCKETMQ_TLS_KEY: not set"},
		{"ROCKETMQ_TLS_KEY", key, "sent 3 events again"},
		{"ROCKETMQ_TRANSPORT", "own", "sent 3 events again"},
		{"ROCKETMQ_TRANSPORT", "client", "ROCKETMQ_TRANSPORT: client: it has no TLS"},
	} {
		if step.variable != "" {
			t.Setenv(step.variable, step.value)
		}
		if _, stdout, stderr := s.rf("resend --all --namesrv " + server.Addr()); !strings.Contains(stdout+stderr, step.says) {
			t.Errorf("%s=%s: %s%s, want %q", step.variable, step.value, stdout, stderr, step.says)
		}
	}
}
