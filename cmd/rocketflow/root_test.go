package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow/test/testdb"
)

func TestCommandLines(t *testing.T) {
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
		{"migrate owner --schema " + schema, exitOK, "belongs to nobody", ""},
		{"migrate owner --set orders --schema " + schema, exitOK, "belongs to orders", ""},
		{"migrate owner --schema " + schema, exitOK, "belongs to orders", ""},
		{"migrate down --schema " + schema, exitUsage, "", "add --yes"},
		{"migrate status --schema " + schema, exitOK, "", ""},
		{"migrate down --yes --schema " + schema, exitOK, "pending", ""},
	} {
		code, stdout, stderr := runLine(c.args)
		if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) || (stderr == "") != (c.stderr == "") || strings.Count(stderr, "\n") > 1 {
			t.Errorf("%q: got %d\n%s\n%s\nwant %d, %q, %q", c.args, code, stdout, stderr, c.code, c.stdout, c.stderr)
		}
	}
}

func TestInterrupt(t *testing.T) {
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
