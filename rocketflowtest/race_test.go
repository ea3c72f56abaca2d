//go:build race

package rocketflowtest_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketflowtest"
)

// TestRaceDetector runs TestRacingHandler in child processes. Under the race detector a package without
// SuppressClientRaces fails with a message that names it, and a test that calls it still reports its own races. (That the client's are not
// reported is shown by all other tests of this package.)
func TestRaceDetector(t *testing.T) {
	t.Parallel()
	for part, want := range map[string]string{
		"unprepared": "rocketflowtest.SuppressClientRaces()",
		"prepared":   "WARNING: DATA RACE",
	} {
		child := exec.Command(os.Args[0], "-test.run=^TestRacingHandler$")
		child.Env = append(os.Environ(), childVariable+"="+part, "GORACE=")
		out, err := child.CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: want a failure with %q, got %v:\n%s", part, want, err, out)
		}
	}
}

// TestRacingHandler has a race of a handler with its test.
func TestRacingHandler(t *testing.T) {
	if os.Getenv(childVariable) == "" {
		t.Skip("for the child processes of TestRaceDetector")
	}
	env := rocketflowtest.New(t)
	handled := 0
	s := env.Start(rocketflowfx.Config{Service: "store", Topics: topics}, fx.Invoke(func(router *handlers.Router) {
		handlers.On(router, "store", func(context.Context, rocketflow.Tx, placed) error { handled++; return nil })
	}))
	s.Publish(placed{"o-1"}, placed{"o-2"}, placed{"o-3"})
	for range 300 {
		handled++
		time.Sleep(time.Millisecond)
	}
	env.Settle()
}
