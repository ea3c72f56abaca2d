package logging_test

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow/internal/logging"
)

// Without a Logger what needs a person is on stderr, and nothing else is.
func TestDefaultWritesToStderr(t *testing.T) {
	t.Parallel()
	if os.Getenv("LOGGING_TEST_CHILD") != "" {
		log := logging.Or(nil)
		log.Info("of no interest")
		log.Warn("look at this")
		log.Error("and at this")
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDefaultWritesToStderr$")
	cmd.Env = append(os.Environ(), "LOGGING_TEST_CHILD=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	got := stderr.String()
	if !strings.Contains(got, "look at this") || !strings.Contains(got, "and at this") || strings.Contains(got, "of no interest") {
		t.Errorf("stderr: %q", got)
	}
}

func TestOrKeepsTheGiven(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	given := slog.New(slog.NewTextHandler(&out, nil)).With("service", "order")
	log := logging.Or(given)
	log.Info("see", "subject", "a\u202e"+strings.Repeat("b", 1<<20))
	if got := out.String(); !strings.Contains(got, "service=order") || len(got) > 5000 || strings.Contains(got, "\u202e") {
		t.Errorf("got %d bytes: %.200q", len(got), got)
	}
	if logging.Or(log) != log {
		t.Error("a logger is wrapped twice")
	}
}
