package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/operate"
)

func (s *seeded) count(t *testing.T, where string) int {
	t.Helper()
	var n int
	if err := s.pool.QueryRow(t.Context(), "SELECT count(*) FROM parked WHERE "+where).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// The lists of dead letters and of parked events show what the flags select.
func TestRedriveListsWhatIsSelected(t *testing.T) {
	t.Parallel()
	s := seed(t)
	e := s.seedEvents(t)
	const heads = "CONSUMER EVENT TYPE TOPIC SUBJECT REASON ATTEMPTS PARKED NEXT LAST ERROR\n"
	const poison = "billing E2 order.changed orders 4711 dead 1 TIME - no such article: \\x1b[31m8\n"
	const bad = "billing L2 order.seen orders - dead 1 TIME - no such article: \\x1b[31m8\n"
	for line, want := range map[string]string{
		"redrive list":                   heads + poison + bad + "2 dead letters",
		"redrive list --limit 1":         heads + poison + "1 dead letter (--limit is reached: there may be more)",
		"redrive list --type order.seen": heads + bad + "1 dead letter",
		"redrive list --subject 4711 --topic orders --consumer billing --source shop": heads + poison + "1 dead letter",
		"redrive list --event " + e.bad.ID.String():                                   heads + bad + "1 dead letter",
		"redrive list --consumer nobody":                                              "0 dead letters",
		"redrive parked":                                                              heads + "billing E3 order.changed orders 4711 gap 0 TIME - -\n1 parked event",
	} {
		code, stdout, stderr := s.rf(line)
		if code != exitOK {
			t.Errorf("%s: exit code %d: %s", line, code, stderr)
		}
		wantLines(t, line, stdout, want)
	}
	var list []struct {
		EventID   uuid.UUID `json:"event_id"`
		LastError string    `json:"last_error"`
	}
	s.json(t, "redrive list --subject 4711", &list)
	if len(list) != 1 || list[0].EventID != e.poison.ID || list[0].LastError != "no such article:\n\t\x1b[31m8" {
		t.Errorf("JSON: %+v", list)
	}
	s.json(t, "redrive list --subject nobody", &list)
	if list == nil || len(list) != 0 {
		t.Errorf("JSON of nothing: %+v", list)
	}
}

// A wrong command line changes nothing.
func TestRedriveRefusesWrongCommandLines(t *testing.T) {
	t.Parallel()
	s := seed(t)
	s.seedEvents(t)
	for line, want := range map[string]string{
		"redrive retry":                              "set a filter, or --all",
		"redrive retry --limit 5":                    "set a filter, or --all",
		"redrive discard --yes":                      "set a filter, or --all",
		"redrive discard --all":                      "confirm with --yes",
		"redrive discard --subject 4711":             "confirm with --yes",
		"redrive discard --consumer= --all --yes":    "--consumer is empty",
		"redrive retry --consumer= --topic orders":   "--consumer is empty",
		"redrive retry --event=":                     "--event is empty",
		"redrive retry --event 4711":                 "want a UUID",
		"redrive retry --event " + uuid.Nil.String(): "want a UUID",
		"redrive discard --all --topic orders --yes": "exclude each other",
		"redrive retry --all --limit -1":             "--limit -1",
		"redrive retry --all --limit 0":              "--limit 0",
		"redrive retry everything":                   "unknown command",
		"redrive list --limit 0":                     "--limit 0",
	} {
		if code, _, stderr := s.rf(line); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%s: got %d, %s", line, code, stderr)
		}
	}
	if n := s.count(t, "reason = 'dead'"); n != 2 {
		t.Errorf("%d dead letters are left, want 2", n)
	}
}

// Retried dead letters are due with their attempts counted from 0 again.
func TestRedriveRetryMakesDeadLettersDue(t *testing.T) {
	t.Parallel()
	s := seed(t)
	s.seedEvents(t)
	for _, c := range []struct{ line, want string }{
		{"redrive retry --type order.seen", "retried 1 dead letter"},
		{"redrive retry --type order.seen", "retried 0 dead letters"},
		{"redrive retry --all", "retried 1 dead letter"},
	} {
		code, stdout, stderr := s.rf(c.line)
		if code != exitOK || strings.TrimSpace(stdout) != c.want {
			t.Errorf("%s: got %d, %s %s", c.line, code, stdout, stderr)
		}
	}
	if n := s.count(t, "reason = 'retry' AND next_at <= now() AND attempts = 0"); n != 2 {
		t.Errorf("%d events are due, want 2", n)
	}
	var n struct{ Retried *int }
	s.json(t, "redrive retry --all", &n)
	if n.Retried == nil || *n.Retried != 0 {
		t.Errorf("JSON: %+v", n)
	}
}

// A discarded dead letter is deleted, and the event behind it is due.
func TestRedriveDiscardFreesTheStream(t *testing.T) {
	t.Parallel()
	s := seed(t)
	e := s.seedEvents(t)
	code, stdout, stderr := s.rf("redrive discard --subject 4711 --yes")
	if code != exitOK || strings.TrimSpace(stdout) != "discarded 1 dead letter" {
		t.Errorf("got %d, %s %s", code, stdout, stderr)
	}
	if s.count(t, "event_id = '"+e.poison.ID.String()+"'") != 0 || s.count(t, "reason = 'dead'") != 1 {
		t.Error("not the right one is gone")
	}
	if n := s.count(t, "next_at <= now() AND event_id = '"+e.follower.ID.String()+"'"); n != 1 {
		t.Error("its follower is not due")
	}
	if code, stdout, _ = s.rf("redrive discard --all --yes"); code != exitOK || strings.TrimSpace(stdout) != "discarded 1 dead letter" {
		t.Errorf("got %d, %s", code, stdout)
	}
}

// Only yes is a yes.
func TestConfirmationTakesOnlyYes(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]bool{"y\n": true, " Yes \n": true, "y": true, "n\n": false, "\n": false, "": false, "yesterday\n": false} {
		var out bytes.Buffer
		if got := ask(strings.NewReader(answer), &out, "discard 2 dead letters?"); got != want || out.String() != "discard 2 dead letters? [y/N] " {
			t.Errorf("%q: got %v, %q", answer, got, out.String())
		}
	}
}

// Not more is discarded than the question named: other things may fail while it waits for its answer.
func TestDiscardsWhatTheQuestionNamed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		answer         string
		n, limit, want int
		question       string
		declined       bool
	}{
		{answer: "y\n", n: 2, want: 2, question: "discard 2 dead letters without their effect? [y/N] "},
		{answer: "y\n", n: 2, limit: 10, want: 2, question: "discard 2 dead letters without their effect? [y/N] "},
		{answer: "y\n", n: operate.DefaultLimit, want: 0, question: fmt.Sprintf("discard %d dead letters or more without their effect? [y/N] ", operate.DefaultLimit)},
		{answer: "n\n", n: 2, want: 2, question: "discard 2 dead letters without their effect? [y/N] nothing was changed\n", declined: true},
	} {
		var asked bytes.Buffer
		cmd := &cobra.Command{}
		cmd.SetIn(strings.NewReader(c.answer))
		cmd.SetErr(&asked)
		limit, err := new(confirmFlag).discard(cmd, c.n, deadLetter, c.limit)
		if limit != c.want || asked.String() != c.question || (err != nil) != c.declined {
			t.Errorf("%+v: got limit %d, %q, %v", c, limit, asked.String(), err)
		}
	}
}
