package main

import (
	"bytes"
	"context"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/testbroker"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// A child process is this test binary again.
func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// drive runs the driver and fails the test unless nothing is lost, duplicated or misordered.
func drive(t *testing.T, args ...string) {
	t.Helper()
	var out, errs bytes.Buffer
	status := run(t.Context(), args, &out, &errs)
	t.Logf("%s%s", out.String(), errs.String())
	summary := regexp.MustCompile(`\nchaos: schedules=[1-9]\d* events=[1-9]\d* lost=0 doubled=0 misordered=0\n$`)
	if status != 0 || !summary.MatchString(out.String()) {
		t.Errorf("exit status %d", status)
	}
}

// length is the duration of a test's run.
func length() string {
	if testing.Short() {
		return "5s"
	}
	return "40s"
}

// TestPromisesHoldOnTheEmbeddedBroker runs different schedules each time. A failure prints the seed of its schedule.
func TestPromisesHoldOnTheEmbeddedBroker(t *testing.T) {
	t.Parallel()
	drive(t, "-database", testdb.URL(t), "-duration", length())
}

func TestPromisesHoldWhilePostgresRestarts(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a Postgres")
	}
	drive(t, "-duration", "20s", "-workers", "2")
}

// TestPromisesHoldOnRocketMQ injects no fault into the broker, since other tests use it.
func TestPromisesHoldOnRocketMQ(t *testing.T) {
	drive(t, "-broker", "rocketmq", "-nameserver", testbroker.NeedsReal(t), "-duration", length())
}

// TestPromisesHoldWhileRocketMQIsKilled starts servers of its own. It mostly ends soon after its duration; where a process
// dies just after a heartbeat, up to two minutes later: see the flag -patience.
func TestPromisesHoldWhileRocketMQIsKilled(t *testing.T) {
	testbroker.NeedsReal(t)
	drive(t, "-broker", "rocketmq", "-duration", length())
}

func TestWrongUsageIsReported(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"-broker", "kafka"}, {"-faults", "fire"}, {"-faults", ""}, {"-inject", "much"}, {"-find", "gold"}, {"-nonsense"}, {"more"}, {"-duration", "0s"}, {"-schedules", "-1"}, {"-seed", "-1"},
		{"-broker", "rocketmq", "-inject", "markers"}, {"-nameserver", "127.0.0.1:9876"},
	} {
		var out, errs bytes.Buffer
		if status := run(t.Context(), args, &out, &errs); status != 2 || errs.Len() == 0 || out.Len() > 0 {
			t.Errorf("%v: exit status %d, %q, %q; want 2 and a reason", args, status, out.String(), errs.String())
		}
	}
}

// TestAnInterruptedRunReportsItsResults cancels a run: it prints what it found until then.
func TestAnInterruptedRunReportsItsResults(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	var out, errs bytes.Buffer
	status := run(ctx, []string{"-database", testdb.URL(t), "-workers", "1"}, &out, &errs)
	if status != 0 || !bytes.Contains(out.Bytes(), []byte("\nchaos: schedules=")) {
		t.Errorf("exit status %d: %s%s", status, &out, &errs)
	}
}

// TestASeedDeterminesItsSchedule checks that a seed generates the same schedule each time, and another seed a different one.
func TestASeedDeterminesItsSchedule(t *testing.T) {
	t.Parallel()
	a, b, c := generate(7, injectAll, false, allFaults).String(), generate(7, injectAll, false, allFaults).String(), generate(8, injectAll, false, allFaults).String()
	if a != b || a == c {
		t.Errorf("seed 7:\n%s\nagain:\n%s\nseed 8:\n%s", a, b, c)
	}
}
