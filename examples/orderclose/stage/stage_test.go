package stage_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/examples/orderclose"
	"github.com/rocketflow/rocketflow/examples/orderclose/stage"
	"github.com/rocketflow/rocketflow/test/testbroker"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// payWithin is longer than a busy machine takes to request a payment: then the customers of each kind have their time.
const payWithin = 3 * time.Second

// TestRun plays the flow with two processes of each service: what one begins, the other may finish.
func TestRun(t *testing.T) {
	t.Parallel()
	summary := run(t, stage.Config{Orders: 60, PayWithin: payWithin})
	if summary.Orders != 60 || summary.Confirmed == 0 || summary.TimedOut == 0 || summary.Declined == 0 || summary.Cancelled == 0 || summary.Refunded == 0 {
		t.Errorf("not every way was gone: %+v", summary)
	}
}

// TestKill kills one of each half way: what they have begun, the others finish.
func TestKill(t *testing.T) {
	t.Parallel()
	if summary := run(t, stage.Config{Orders: 120, Kill: true}); summary.Orders != 120 {
		t.Errorf("not all orders are there: %+v", summary)
	}
}

func TestKillNeedsAnother(t *testing.T) {
	t.Parallel()
	var field *rocketflow.FieldError
	if _, err := stage.Run(t.Context(), stage.Config{Kill: true}); !errors.As(err, &field) {
		t.Errorf("error is %v, want one that names the field", err)
	}
}

func run(t *testing.T, c stage.Config) orderclose.Summary {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute+testbroker.Patience())
	defer cancel()
	var out strings.Builder
	c.DatabaseURL, c.NameServers, c.Processes, c.Out = testdb.URL(t), strings.Join(testbroker.NameServers(t), ";"), 2, &out
	c.Command = func(service string) *exec.Cmd {
		command := exec.Command(os.Args[0])
		command.Env = []string{serviceVariable + "=" + service}
		return command
	}
	summary, err := stage.Run(ctx, c)
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	if !summary.OK() {
		t.Errorf("promises are broken: %+v", summary)
	}
	if last := strings.TrimSpace(out.String()); last[strings.LastIndexByte(last, '\n')+1:] != summary.String() {
		t.Errorf("the last line isn't the summary: %s", last)
	}
	return summary
}
