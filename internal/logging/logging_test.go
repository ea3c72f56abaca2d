package logging_test

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow/internal/logging"
)

// Without a Logger, warnings and errors are written to stderr, and nothing else is.
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

// No part of the library is silent by default.
func TestEveryPartLogsByDefault(t *testing.T) {
	t.Parallel()
	for _, part := range []string{"outbox", "handlers", "saga", "timeout", "rocketmq", "rocketflowfx"} {
		files, err := filepath.Glob(filepath.Join("..", "..", part, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", part, len(files), err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(file, "_test.go") && bytes.Contains(source, []byte("DiscardHandler")) {
				t.Errorf("%s discards what is logged: use logging.Or", file)
			}
		}
	}
}
