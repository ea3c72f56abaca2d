package main

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/test/poll"
)

// bill runs a command line on the schema of billing.
func (f *flow) bill(words string) (code int, out, stderr string) {
	f.t.Helper()
	return runLine(words + " --database-url " + f.DatabaseURL() + " --schema " + f.billing.Schema)
}

// A paused consumer is an incident whose cause is named by why, reconcile and the list, and which resume ends.
func TestAPausedConsumerIsNamedAndResumed(t *testing.T) {
	t.Parallel()
	var handled atomic.Int64
	f := newFlow(t, func(rocketflow.Event) error { handled.Add(1); return nil })
	f.publish("order.placed", "4711")
	poll.Until(t, "the consumer works", func() bool { return handled.Load() == 1 })
	if code, out, stderr := f.bill("pause --consumer bills --by maria --reason bank-away"); code != exitOK || out != "paused consumer bills\n" {
		t.Fatalf("%d %s%s", code, out, stderr)
	}
	held := f.publish("order.changed", "4711")
	loose := f.publish("order.seen", "")
	f.acked(held, loose)
	for _, broker := range []bool{false, true} {
		for _, id := range []string{held.String(), loose.String(), "4711"} {
			v := f.why(id, broker).Verdict
			if v.State != operate.VerdictStopped || v.For != "an operator to resume consumer bills" || !strings.Contains(v.Because, "by maria: bank-away") ||
				v.Command != "rocketflow resume --consumer bills --schema "+f.billing.Schema {
				t.Errorf("why %s, broker asked %v: %+v", id, broker, v)
			}
		}
	}
	poll.Until(t, "reconcile says what is unread, and why", func() bool {
		_, out, _ := f.line("reconcile --since 1h --grace 10s")
		return strings.Contains(out, "2 unread") && strings.Contains(out, "consumer bills is paused by maria for ")
	})
	if code, out, _ := f.bill("pause list"); code != exitOK || !strings.Contains(out, "maria") || !strings.Contains(out, "at the broker") || !strings.Contains(out, "bank-away") {
		t.Errorf("list: %d %s", code, out)
	}
	if n := handled.Load(); n != 1 {
		t.Errorf("%d were handled", n)
	}
	if code, out, stderr := f.bill("resume --consumer bills"); code != exitOK || out != "resumed consumer bills\n" {
		t.Fatalf("%d %s%s", code, out, stderr)
	}
	poll.Until(t, "it goes on", func() bool { return handled.Load() == 3 })
	poll.Until(t, "why says done", func() bool { return f.why(held.String(), false).Verdict.State == operate.VerdictDone })
	if code, out, _ := f.bill("pause list"); code != exitOK || out != "nothing is paused\n" {
		t.Errorf("list: %d %s", code, out)
	}
	if code, _, stderr := f.bill("resume --consumer bills"); code != exitFailure || !strings.Contains(stderr, "is not paused") {
		t.Errorf("resumed twice: %d %s", code, stderr)
	}
}

// So is a paused handler, which holds its events and what is behind them, on a broker and with an outbox as in production.
func TestAPausedHandlerIsNamedAndResumed(t *testing.T) {
	t.Parallel()
	var handled atomic.Int64
	f := newFlow(t, func(rocketflow.Event) error { handled.Add(1); return nil })
	f.publish("order.placed", "4711")
	poll.Until(t, "the consumer works", func() bool { return handled.Load() == 1 })
	if code, out, stderr := f.bill("pause --consumer bills --topic orders --type order.changed --by maria"); code != exitOK || out != "paused the handler of bills for order.changed on topic orders\n" {
		t.Fatalf("%d %s%s", code, out, stderr)
	}
	held, behind, other := f.publish("order.changed", "4711"), f.publish("order.placed", "4711"), f.publish("order.placed", "4712")
	f.acked(held, behind, other)
	poll.Until(t, "they are parked", func() bool {
		var n int
		err := f.billing.Pool.QueryRow(context.Background(), "SELECT count(*) FROM parked").Scan(&n)
		return err == nil && n == 2 && handled.Load() == 2
	})
	resume := "rocketflow resume --consumer bills --topic orders --type order.changed --schema " + f.billing.Schema
	for _, id := range []string{held.String(), "4711"} {
		if v := f.why(id, false).Verdict; v.State != operate.VerdictStopped || v.Command != resume || !strings.Contains(v.Because, "1 event of the stream held behind it") {
			t.Errorf("why %s: %+v", id, v)
		}
	}
	if v := f.why(behind.String(), false).Verdict; v.State != operate.VerdictStopped || v.Command != "rocketflow why "+held.String() || !strings.Contains(v.Because, "held by a pause") {
		t.Errorf("why behind: %+v", v)
	}
	poll.Until(t, "reconcile says what is parked, and why", func() bool {
		_, out, _ := f.line("reconcile --since 1h --grace 10s")
		return strings.Contains(out, "1 parked (paused)") && strings.Contains(out, "the handler of bills for order.changed on topic orders is paused by maria for ")
	})
	if code, out, _ := f.bill("pause list --json"); code != exitOK || !strings.Contains(out, `"held": 1`) {
		t.Errorf("list: %d %s", code, out)
	}
	if code, _, stderr := f.bill("resume --consumer bills --topic orders --type order.changed"); code != exitOK {
		t.Fatal(stderr)
	}
	start := time.Now()
	poll.Until(t, "it goes on", func() bool { return handled.Load() == 4 })
	t.Log("went on after", time.Since(start))
}

// A wrong command line pauses nothing.
func TestPauseRefusesWrongCommandLines(t *testing.T) {
	t.Parallel()
	s := seed(t)
	s.seedEvents(t)
	for line, want := range map[string]string{
		"pause":                             "--consumer is missing",
		"pause --consumer billing --type x": "--topic is missing",
		"pause --consumer billing --topic= --type x":                   "--topic is missing",
		"pause --consumer billing --topic orders":                      "want either --type",
		"pause --consumer billing --topic orders --type x --subject y": "want either --type",
		"pause --consumer billing --topic orders --subject=":           "--subject is empty",
		"pause everything":                      "unknown command",
		"resume --consumer billing --subject 1": "--topic is missing",
	} {
		if code, _, stderr := s.rf(line); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%s: got %d, %s", line, code, stderr)
		}
	}
	for _, line := range []string{"pause --consumer biling", "pause --consumer billing --topic orders --type nothing"} {
		if code, _, stderr := s.rf(line); code != exitFailure || !strings.Contains(stderr, "rocketflow doctor") {
			t.Errorf("%s: got %d, %s", line, code, stderr)
		}
	}
	var n int
	if err := s.pool.QueryRow(t.Context(), "SELECT count(*) FROM pause").Scan(&n); err != nil || n != 0 {
		t.Error(fmt.Sprint(n, " pauses, "), err)
	}
}
