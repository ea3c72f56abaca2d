package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A dead letter is shown, edited and retried; what was delivered is kept and shown.
func TestRedriveEditsADeadLetter(t *testing.T) {
	t.Parallel()
	s := seed(t)
	e := s.seedEvents(t)
	bad := "--consumer billing " + e.bad.ID.String()
	if code, stdout, stderr := s.rf("redrive show --body " + bad); code != exitOK || stdout != `{"cents":1}` {
		t.Errorf("show: %d %s%s", code, stdout, stderr)
	}
	file := filepath.Join(t.TempDir(), "body.json")
	if err := os.WriteFile(file, []byte(`{"cents":100}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"redrive edit " + bad:                             "nothing is changed",
		"redrive edit --body-file x " + e.bad.ID.String(): "--consumer is missing",
		"redrive edit --header x " + bad:                  "want NAME=VALUE",
		"redrive edit --no-headers --header a=b " + bad:   "exclude each other",
		"redrive edit --consumer billing 4711":            "want a UUID",
		"redrive retry --all --rate 0":                    "--rate 0",
		"redrive retry --all --first-timeout 0s":          "--first-timeout",
	} {
		if code, _, stderr := s.rf(line); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%s: %d %s", line, code, stderr)
		}
	}
	if code, stdout, stderr := s.rf("redrive edit --by maria --header tenant=acme --body-file " + file + " " + bad); code != exitOK || stdout != "edited L2, which is due\n" {
		t.Fatalf("edit: %d %s%s", code, stdout, stderr)
	}
	if n := s.count(t, "reason = 'retry' AND attempts = 0 AND next_at <= now() AND edited AND convert_from(body, 'UTF8') = '{\"cents\":100}' AND headers->>'tenant' = 'acme'"); n != 1 {
		t.Errorf("%d edited events are due", n)
	}
	if code, _, stderr := s.rf("redrive edit --no-headers " + bad); code != exitFailure || !strings.Contains(stderr, "has no dead letter") {
		t.Errorf("edit what is due: %d %s", code, stderr)
	}
	if code, stdout, _ := s.rf("redrive show --original --body " + bad); code != exitOK || stdout != `{"cents":1}` {
		t.Errorf("original: %d %s", code, stdout)
	}
	s.exec(t, "UPDATE parked SET reason = 'dead' WHERE edited")
	var list []contentJSON
	s.json(t, "redrive show "+bad, &list)
	if len(list) != 1 || !list[0].Edited || *list[0].Text != `{"cents":100}` || list[0].Headers["tenant"] != "acme" || list[0].Original == nil || *list[0].Original.Text != `{"cents":1}` {
		t.Errorf("show: %+v", list)
	}
	// Edited twice, the original is what was delivered.
	if code, _, stderr := s.rf("redrive edit --no-headers " + bad); code != exitOK {
		t.Fatal(stderr)
	}
	if _, stdout, _ := s.rf("redrive show --original --body " + bad); stdout != `{"cents":1}` {
		t.Errorf("the original after two edits: %s", stdout)
	}
	_, stdout, _ := s.rf("audit --actor maria")
	wantLines(t, "audit", stdout, "ID AT BY ACTION CHANGED WHAT REASON\n1 TIME maria dead_letters.edit 1 L2 -\n1 change")
}
