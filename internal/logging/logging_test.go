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
	given := slog.New(slog.DiscardHandler)
	if got := logging.Or(given); got != given {
		t.Errorf("got %p, want %p", got, given)
	}
}
