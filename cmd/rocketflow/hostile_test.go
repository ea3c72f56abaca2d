package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// hostile is a long text that moves the cursor, reorders a line and breaks it.
var hostile = "a\x1b[2J\u009b31m\r\n\t\u202e\u2066\u2028\ufeff" + strings.Repeat("\u009b\u202ex", 100_000)

func isHarmless(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp))
	})
}

// Text of an event, an error, a timeout or a saga can neither control the terminal nor fill the screen.
func TestOutputIsHarmless(t *testing.T) {
	t.Parallel()
	s := seed(t)
	e := s.seedEvents(t)
	s.seedSaga(t, "cart-1", true)
	short := strings.ToValidUTF8(hostile[:200], "")
	s.exec(t, "UPDATE parked SET last_error = $1, type = $2, database = $2, content_type = $2, source = $2", hostile, short)
	s.exec(t, "UPDATE parked SET timeout_key = $1, timeout_name = $1", hostile)
	s.exec(t, "UPDATE outbox SET type = $1, content_type = $1, body = $2, headers = jsonb_build_object('a', $3::text)", short, []byte(`{"`+short[:1]+"\u009b\u202e"+`":"`+"\u009b\u202e"+`"}`), hostile)
	s.exec(t, "UPDATE timeout SET name = $1 || name, type = $1", short)
	s.exec(t, "UPDATE saga SET state = $1, data = jsonb_build_object($2::text, $2::text)", short, "\u009b\u202e")
	s.exec(t, "UPDATE saga_history SET from_state = $1, to_state = $1, cause_type = $1", short)
	for _, line := range []string{
		"redrive list", "redrive parked", "inspect event --body " + e.first.ID.String(), "inspect event " + e.poison.ID.String(), "inspect event " + e.bad.ID.String(),
		"inspect stream 4711", "inspect backlog", "inspect timeouts", "inspect saga cart-1",
		"why " + e.first.ID.String(), "why " + e.poison.ID.String(), "why " + e.bad.ID.String(), "why 4711", "why cart-1",
	} {
		code, stdout, stderr := runLine(line + " --schema " + s.schema)
		if code != exitOK {
			t.Errorf("%s: exit code %d: %.300q", line, code, stderr)
		}
		if !isHarmless(stdout) {
			t.Errorf("%s: %.2000q", line, stdout)
		}
		for _, l := range strings.Split(stdout, "\n") {
			if len(l) > 6000 {
				t.Errorf("%s: a line of %d bytes: %.100s", line, len(l), l)
			}
		}
		// JSON is complete, and harmless all the same.
		if code, stdout, stderr = runLine(line + " --json --schema " + s.schema); code != exitOK || !isHarmless(stdout) {
			t.Errorf("%s --json: exit code %d: %.300q %.2000q", line, code, stderr, stdout)
		}
	}
	for _, line := range []string{
		"inspect event X", "inspect saga X", "inspect stream X", "redrive list --event X", "resend --since X", "X", "inspect X", "redrive retry --X",
	} {
		args := strings.Fields(line)
		for i, a := range args {
			args[i] = strings.ReplaceAll(a, "X", strings.ToValidUTF8(hostile[:4000], ""))
		}
		var out, failure bytes.Buffer
		code := run(t.Context(), append(args, "--schema", s.schema), &out, &failure)
		stdout, stderr := out.String(), failure.String()
		if code == exitOK || !isHarmless(stdout+stderr) || len(stderr) > 12_000 {
			t.Errorf("%s: exit code %d, %d bytes: %.2000q", line, code, len(stderr), stderr)
		}
	}
}
