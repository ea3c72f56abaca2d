package main

import (
	"strings"
	"testing"
)

// reject records the event that seedEvents left owed as rejected.
func (s *seeded) reject(t *testing.T, e events) {
	t.Helper()
	s.exec(t, "INSERT INTO outbox_rejected (id, topic, reason, next_at) VALUES ($1, 'orders', 'message \x1b[31mtoo large', clock_timestamp())", e.follower.ID)
}

// Rejected events are listed, and then retried, redirected or discarded as the flags select.
func TestOwedChangesWhatIsSelected(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ line, says string }{
		{"owed retry --all", "retried 1 rejected event"},
		{"owed redirect --topic orders --to invoices", "redirected 1 rejected event"},
		{"owed discard --subject 4711 --yes", "discarded 1 rejected event"},
		{"owed discard --topic articles --yes", "discarded 0 rejected events"},
		{"owed discard --all --yes --json", `"discarded": 1`},
	} {
		t.Run(c.line, func(t *testing.T) {
			t.Parallel()
			s := seed(t)
			s.reject(t, s.seedEvents(t))
			code, stdout, stderr := s.rf("owed list")
			if code != exitOK || !strings.Contains(stdout, `E3 order.changed orders 4711 11 TIME 1 message \x1b[31mtoo large`) || !strings.Contains(stdout, "\n1 rejected event") {
				t.Errorf("list: exit code %d: %s%s", code, stdout, stderr)
			}
			if code, stdout, _ := s.rf("owed list --json"); code != exitOK || !strings.Contains(stdout, `"event_id": "E3"`) {
				t.Errorf("list --json: exit code %d: %s", code, stdout)
			}
			if code, stdout, stderr := s.rf("inspect backlog"); code != exitOK || !strings.Contains(stdout, "orders") {
				t.Errorf("inspect backlog doesn't show what is rejected: exit code %d: %s%s", code, stdout, stderr)
			}
			if code, stdout, stderr = s.rf(c.line); code != exitOK || !strings.Contains(stdout, c.says) {
				t.Errorf("exit code %d: %s%s, want %q", code, stdout, stderr, c.says)
			}
		})
	}
}

// A wrong command line changes nothing.
func TestOwedRefusesWrongCommandLines(t *testing.T) {
	t.Parallel()
	s := seed(t)
	for line, want := range map[string]string{
		"owed retry":                       "set a filter, or --all",
		"owed redirect --all":              "--to is missing",
		"owed redirect --to x":             "set a filter, or --all",
		"owed discard --all":               "confirm with --yes",
		"owed discard --yes":               "set a filter, or --all",
		"owed discard --yes --topic=":      "--topic is empty",
		"owed list --event 1":              "want a UUID",
		"owed retry --all --limit 0":       "--limit 0",
		"owed retry --all --topic orders":  "exclude each other",
		"owed redirect --topic a --to= -v": "unknown",
	} {
		if code, _, stderr := s.rf(line); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit code %d: %s, want %q", line, code, stderr, want)
		}
	}
}
