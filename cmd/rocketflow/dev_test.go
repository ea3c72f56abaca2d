package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// The tests of dev use servers that run already. The tests of package devstack start servers.

func TestDevRunsACommand(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -KILL $$": 128 + 9} {
		var out, err bytes.Buffer
		code := run(context.Background(), []string{"dev", "--", "sh", "-c", "echo $DATABASE_URL $ROCKETMQ_NAMESRV $ROCKETFLOW_STACK; " + script}, &out, &err)
		if code != want {
			t.Errorf("%s: exit code %d, want %d\n%s", script, code, want, err.String())
		}
		if got, want := out.String(), os.Getenv("DATABASE_URL")+" "+os.Getenv("ROCKETMQ_NAMESRV")+" 1\n"; got != want {
			t.Errorf("the command saw %q, want %q", got, want)
		}
	}
}

func TestDevPrintsTheVariables(t *testing.T) {
	var out, err bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond) // stands in for Ctrl-C
	defer cancel()
	if code := run(ctx, []string{"dev"}, &out, &err); code != exitOK {
		t.Fatalf("exit code %d: %s", code, err.String())
	}
	want := "export DATABASE_URL='" + os.Getenv("DATABASE_URL") + "'\nexport ROCKETMQ_NAMESRV='" + os.Getenv("ROCKETMQ_NAMESRV") + "'\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestDevWithoutServers(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://127.0.0.1:1/gone?connect_timeout=5")
	code, _, stderr := runLine("dev -- true")
	if code != exitFailure || !strings.Contains(stderr, "DATABASE_URL names a PostgreSQL") {
		t.Errorf("got %d, %s", code, stderr)
	}
}
