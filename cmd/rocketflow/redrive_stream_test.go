package main

import (
	"fmt"
	"strings"
	"testing"
)

// Only the first event behind a gap can be accepted.
func TestRedriveAcceptsTheFirstBehindAGap(t *testing.T) {
	t.Parallel()
	s := seed(t)
	e := s.seedEvents(t)
	s.exec(t, "DELETE FROM parked WHERE event_id = $1", e.poison.ID) // it never came
	accept := "redrive accept --consumer billing " + e.follower.ID.String()
	if code, stdout, stderr := s.rf(accept); code != exitOK || !strings.HasPrefix(stdout, "accepted ") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if n := s.count(t, "reason = 'retry' AND next_at <= now()"); n != 1 {
		t.Errorf("%d events are due, want 1", n)
	}
	for line, want := range map[string]string{
		accept: "waits behind a gap",
		"redrive accept " + e.follower.ID.String():    "--consumer is missing",
		"redrive accept --consumer billing not-an-id": "want a UUID",
	} {
		if code, _, stderr := s.rf(line); code == exitOK || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit code %d: %s, want %q", line, code, stderr, want)
		}
	}
}

// Events of a retired handler are skipped.
func TestRedriveRetireReleasesWaitingEvents(t *testing.T) {
	t.Parallel()
	s := seed(t)
	e := s.seedEvents(t)
	s.exec(t, "INSERT INTO consumer_handler (consumer, topic, type) VALUES ('billing', 'orders', 'order.changed') ON CONFLICT DO NOTHING")
	s.exec(t, "UPDATE parked SET reason = 'unhandled', next_at = 'infinity' WHERE event_id = $1", e.poison.ID)
	retire := "redrive retire --consumer billing --topic orders --type order.changed"
	if code, _, stderr := s.rf(retire); code == exitOK || !strings.Contains(stderr, "--yes") {
		t.Errorf("without a terminal: exit code %d: %s", code, stderr)
	}
	if code, stdout, stderr := s.rf(retire + " --yes"); code != exitOK || !strings.Contains(stdout, "1 parked event skipped") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if n := s.count(t, "reason = 'unhandled'"); n != 0 {
		t.Errorf("%d events wait for their handler still", n)
	}
	if code, _, stderr := s.rf(retire + " --yes"); code == exitOK || !strings.Contains(stderr, "no record of a handler") {
		t.Errorf("twice: exit code %d: %s", code, stderr)
	}
}

// A position can be set back.
func TestRedriveResetSetsThePosition(t *testing.T) {
	t.Parallel()
	s := seed(t)
	e := s.seedEvents(t)
	const stream = "redrive reset --consumer billing --source shop --topic orders --subject 4711"
	if code, stdout, stderr := s.rf(fmt.Sprintf("%s --to %d", stream, e.first.Sequence-1)); code != exitOK {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	var sequence int64
	if err := s.pool.QueryRow(t.Context(), "SELECT sequence FROM position WHERE consumer = 'billing' AND subject = '4711'").Scan(&sequence); err != nil || sequence != e.first.Sequence-1 {
		t.Errorf("position %d (%v), want %d", sequence, err, e.first.Sequence-1)
	}
	for line, want := range map[string]string{
		stream: "--to",
		"redrive reset --consumer nobody --source shop --topic orders --subject 4711 --to 5": "no position",
		"redrive reset --consumer billing --topic orders --subject 4711 --to 5":              "--source is missing",
	} {
		if code, _, stderr := s.rf(line); code == exitOK || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit code %d: %s, want %q", line, code, stderr, want)
		}
	}
}
