package servicetest

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// childVariable makes a test's own binary the service.
const childVariable = "ROCKETFLOW_TEST_MAIN"

// IsChild reports whether TestMain must call main.
func IsChild() bool { return os.Getenv(childVariable) != "" }

// RunMain runs a service's main as a process of its own: with settings that it must refuse, and with good ones until it
// gets the signal to stop.
func RunMain(t *testing.T) {
	e := New(t)
	schemas := []string{e.run, e.run + "_rocketflow"}
	good := []string{
		"DATABASE_URL=" + e.databaseURL, "DATABASE_SCHEMA=" + schemas[0], "ROCKETFLOW_SCHEMA=" + schemas[1],
		"ROCKETMQ_NAMESRV=" + e.nameServer, "ROCKETMQ_NAMESPACE=" + e.run,
		"ROCKETFLOW_CREATE_TOPICS=1", "LISTEN_ADDR=127.0.0.1:0",
	}
	for _, bad := range []string{
		"DATABASE_URL=", "DATABASE_URL=postgres://127.0.0.1:1/x?sslmode=nonsense", "ROCKETMQ_NAMESRV=", "ROCKETMQ_NAMESRV=nonsense", "LISTEN_ADDR=nonsense",
	} {
		variable, _, _ := strings.Cut(bad, "=")
		t.Run(bad, func(t *testing.T) {
			t.Parallel()
			out, err := command(t.Context(), append(good, bad)).CombinedOutput()
			if code := exitCode(err); code != 1 {
				t.Errorf("exit code is %d, want 1", code)
			}
			if s := string(out); !strings.HasPrefix(s, variable+": ") || strings.Count(s, "\n") != 1 {
				t.Errorf("output is %q, want one line that begins with %s", s, variable)
			}
		})
	}
	t.Run("usage", func(t *testing.T) {
		t.Parallel()
		if code := exitCode(command(t.Context(), good, "argument").Run()); code != 2 {
			t.Errorf("exit code is %d, want 2", code)
		}
	})
	t.Run("run", func(t *testing.T) {
		t.Parallel()
		t.Cleanup(func() { e.drop(schemas...) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c := command(ctx, good)
		stderr, err := c.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			t.Log(lines.Text())
			if strings.Contains(lines.Text(), "msg=started") {
				if err := c.Process.Signal(syscall.SIGTERM); err != nil {
					t.Error(err)
				}
			}
		}
		if err := c.Wait(); err != nil {
			t.Errorf("service did not stop in order: %v", err)
		}
	})
}

func command(ctx context.Context, env []string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, os.Args[0], args...)
	c.Env = append(append(os.Environ(), childVariable+"=1"), env...)
	return c
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}
