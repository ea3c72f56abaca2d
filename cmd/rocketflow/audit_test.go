package main

import (
	"testing"

	"github.com/rocketflow/rocketflow/operate"
)

// The audit shows who changed what, and why; by default the user of the operating system did.
func TestAuditListsChanges(t *testing.T) {
	t.Parallel()
	s := seed(t)
	e := s.seedEvents(t)
	s.names = append(s.names, osUser(), "USER")
	for _, line := range []string{
		"redrive retry --event " + e.bad.ID.String(),
		"redrive retry --subject 4711 --by maria --reason ticket-7",
	} {
		if code, _, stderr := s.rf(line); code != exitOK {
			t.Fatalf("%s: exit code %d: %s", line, code, stderr)
		}
	}
	const heads = "ID AT BY ACTION CHANGED WHAT REASON\n"
	for line, want := range map[string]string{
		"audit":               heads + "2 TIME maria dead_letters.retry 1 E2 ticket-7\n1 TIME USER dead_letters.retry 1 L2 -\n2 changes",
		"audit --limit 1":     heads + "2 TIME maria dead_letters.retry 1 E2 ticket-7\n1 change (--limit is reached: there may be more)",
		"audit --before 2":    heads + "1 TIME USER dead_letters.retry 1 L2 -\n1 change",
		"audit --actor maria": heads + "2 TIME maria dead_letters.retry 1 E2 ticket-7\n1 change",
		"audit --denied":      "0 changes",
		"audit --until 1h":    "0 changes",
		"audit --id " + e.bad.ID.String() + " --action dead_letters.retry --since 1h": heads + "1 TIME USER dead_letters.retry 1 L2 -\n1 change",
	} {
		code, stdout, stderr := s.rf(line)
		if code != exitOK {
			t.Errorf("%s: exit code %d: %s", line, code, stderr)
		}
		wantLines(t, line, stdout, want)
	}
	var list []operate.AuditEntry
	s.json(t, "audit --actor maria", &list)
	if len(list) != 1 || string(list[0].Filter) == "" || list[0].Role == "" || len(list[0].IDs) != 1 || list[0].Reason != "ticket-7" {
		t.Errorf("JSON: %+v", list)
	}
	for _, line := range []string{"audit --limit 0", "audit --since x", "audit --operation x", "audit --before -1", "audit now"} {
		if code, _, _ := s.rf(line); code != exitUsage {
			t.Errorf("%s: exit code %d", line, code)
		}
	}
}
