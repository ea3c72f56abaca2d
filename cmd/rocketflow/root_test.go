package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/rocketflow/rocketflow/test/testdb"
)

// Each command line ends with the right exit code, and with one line of error at most.
func TestExitCodesAndErrors(t *testing.T) {
	t.Parallel()
	_, schema := testdb.Schema(t)
	for _, c := range []struct {
		args   string
		code   int
		stdout string // part of it
		stderr string // part of its one line; "" for none
	}{
		{"", exitOK, "Available Commands", ""},
		{"help", exitOK, "Available Commands", ""},
		{"dev --help", exitOK, "--namesrv-port", ""},
		{"version", exitOK, "RocketMQ 5", ""},
		{"bogus", exitUsage, "", `unknown command "bogus"`},
		{"migrat", exitUsage, "", "did you mean migrate?"},
		{"migrate sideways", exitUsage, "", `unknown command "sideways"`},
		{"migrate status --bogus", exitUsage, "", "unknown flag: --bogus"},
		{"migrate status --schema=", exitUsage, "", "--schema is empty"},
		{"migrate status --database-url=postgres://127.0.0.1:1/none?connect_timeout=5", exitFailure, "", "connect to Postgres"},
		{"demo --orders 0", exitUsage, "", "--orders 0"},
		{"demo --kill", exitUsage, "", "--processes 2"},
		{"demo --help", exitOK, "--broker embedded|rocketmq", ""},
		{"demo --broker=kafka", exitUsage, "", `"kafka" for "--broker" flag: want embedded or rocketmq`},
		{"dev --broker=kafka", exitUsage, "", `"kafka" for "--broker" flag: want embedded or rocketmq`},
		{"dev go", exitUsage, "", "put -- before a command"},
		{"dev --", exitUsage, "", "a command is missing"},
		{"dev -- no-such-program", exitFailure, "", "no-such-program"},
		{"migrate status --schema " + schema, exitOK, "pending", ""},
		{"migrate up --schema " + schema, exitOK, "00001_outbox.sql", ""},
		{"migrate owner --schema " + schema, exitOK, "belongs to no service yet", ""},
		{"migrate owner --set orders --schema " + schema, exitOK, "belongs to orders", ""},
		{"migrate owner --schema " + schema, exitOK, "belongs to orders", ""},
		{"migrate down --schema " + schema, exitUsage, "", "confirm with --yes"},
		{"migrate status --schema " + schema, exitOK, "", ""},
		{"migrate down --yes --schema " + schema, exitOK, "pending", ""},
	} {
		code, stdout, stderr := runLine(c.args)
		if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) || (stderr == "") != (c.stderr == "") || strings.Count(stderr, "\n") > 1 {
			t.Errorf("%q: got %d\n%s\n%s\nwant %d, %q, %q", c.args, code, stdout, stderr, c.code, c.stdout, c.stderr)
		}
	}
}

// A signal ends a command with the exit code of shells.
func TestSignalEndsTheCommand(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context()) // stands in for Ctrl-C
	cancel()
	var out, err bytes.Buffer
	if code := run(ctx, []string{"demo"}, &out, &err); code != exitSignal || strings.Count(err.String(), "\n") != 1 {
		t.Errorf("got %d, %q, want %d and one line", code, err.String(), exitSignal)
	}
}

func runLine(line string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(context.Background(), strings.Fields(line), &out, &err)
	return code, out.String(), err.String()
}

// The help of each command fits on one screen and has an example.
func TestHelpFitsOnOneScreen(t *testing.T) {
	t.Parallel()
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		if cmd.Hidden {
			return
		}
		_, help, _ := runLine(strings.TrimPrefix(cmd.CommandPath(), "rocketflow") + " --help")
		lines := strings.Split(help, "\n")
		if len(lines) > 45 {
			t.Errorf("%s: %d lines of help", cmd.CommandPath(), len(lines))
		}
		for _, l := range lines {
			if n := utf8.RuneCountInString(l); n > 122 {
				t.Errorf("%s: a line of %d characters: %s", cmd.CommandPath(), n, l)
			}
		}
		if !strings.Contains(help, "Examples:") && cmd.Name() != "version" {
			t.Errorf("%s: no example", cmd.CommandPath())
		}
		for _, c := range cmd.Commands() {
			check(c)
		}
	}
	check(newRoot())
}
