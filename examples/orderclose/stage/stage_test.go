package stage_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/examples/orderclose/stage"
	"github.com/rocketflow/rocketflow/internal/pgtest"
)

// TestRun plays the flow with two processes of each service: what one begins, the other may finish.
func TestRun(t *testing.T) {
	t.Parallel()
	nameServers := os.Getenv("ROCKETMQ_NAMESRV")
	if nameServers == "" {
		t.Fatal("ROCKETMQ_NAMESRV is not set: run `make test`, or start servers with `make dev` and export the two variables that it prints")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var out strings.Builder
	summary, err := stage.Run(ctx, stage.Config{
		DatabaseURL: pgtest.URL(t),
		NameServers: nameServers,
		Command: func(service string) *exec.Cmd {
			command := exec.Command(os.Args[0])
			command.Env = []string{serviceVariable + "=" + service}
			return command
		},
		Orders:    60,
		Processes: 2,
		Out:       &out,
	})
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	if !summary.OK() {
		t.Errorf("promises are broken: %+v", summary)
	}
	if summary.Orders != 60 || summary.Confirmed == 0 || summary.TimedOut == 0 || summary.Declined == 0 || summary.Cancelled == 0 || summary.Refunded == 0 {
		t.Errorf("not every way was gone: %+v", summary)
	}
	if last := strings.TrimSpace(out.String()); last[strings.LastIndexByte(last, '\n')+1:] != summary.String() {
		t.Errorf("the last line isn't the summary: %s", last)
	}
}
