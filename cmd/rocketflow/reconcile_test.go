package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/metrics"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// reconcile runs the command and returns its result.
func (f *flow) reconcile(words string) (code int, x operate.Reconciliation) {
	f.t.Helper()
	code, out, stderr := f.line("reconcile --json " + words)
	if err := json.Unmarshal([]byte(out), &x); err != nil {
		f.t.Fatalf("%d %v\n%s%s", code, err, out, stderr)
	}
	_, text, _ := f.line("reconcile " + strings.ReplaceAll(words, "--mend", ""))
	f.t.Logf("%s", text)
	if lines := strings.Count(text, "\n"); lines > 45 {
		f.t.Errorf("%d lines don't fit on a screen", lines)
	}
	return code, x
}

// wantTotals fails unless the sums over all consumers are these.
func wantTotals(t *testing.T, x operate.Reconciliation, published, handled, waiting, missing, unknown int) {
	t.Helper()
	p, h, w, m, u := x.Totals()
	if p != published || h != handled || w != waiting || m != missing || u != unknown {
		t.Errorf("%d published, %d handled, %d waiting, %d missing, %d unknown; want %d, %d, %d, %d, %d: %+v", p, h, w, m, u, published, handled, waiting, missing, unknown, x)
	}
}

// cause returns why an event is missing; "" if it is not listed.
func cause(x operate.Reconciliation, id uuid.UUID) operate.MissingCause {
	for _, v := range x.Missing {
		if v.EventID == id {
			return v.Cause
		}
	}
	return ""
}

// Events that the broker confirmed and lost are found, the end of a stream and one without order as well, and --mend has them handled.
func TestReconcileFindsAndMendsWhatTheBrokerLost(t *testing.T) {
	t.Parallel()
	f := newFlow(t, nil)
	f.publish("order.placed", "4711")
	f.publish("order.seen", "")
	f.Settle()
	f.FastForward(2 * time.Minute)
	code, x := f.reconcile("")
	if wantTotals(t, x, 2, 2, 0, 0, 0); code != exitOK {
		t.Errorf("exit code %d", code)
	}

	f.billing.Stop()
	end, loose := f.publish("order.changed", "4711"), f.publish("order.seen", "")
	f.acked(end, loose)
	f.FastForward(2 * time.Minute)
	code, x = f.reconcile("")
	if wantTotals(t, x, 4, 2, 2, 0, 0); code != exitOK || x.Consumers[0].Unread != 2 {
		t.Errorf("unread: %d %+v", code, x)
	}

	f.RestartBroker(rocketmqtest.LoseUnflushed)
	f.billing.Start()
	f.Settle()
	code, x = f.reconcile("")
	wantTotals(t, x, 4, 2, 0, 2, 0)
	if code != exitFailure || cause(x, end) != operate.MissingLost || cause(x, loose) != operate.MissingLost {
		t.Errorf("lost: %d %+v", code, x)
	}
	poll.Until(t, "the consumer to notice that its offsets are beyond the queues", func() bool {
		code, x = f.reconcile("--mend")
		return x.Mended == 2 || x.Postponed == ""
	})
	if code != exitOK || x.Mended != 2 || !x.Missing[0].Mended {
		t.Errorf("mended: %d %+v", code, x)
	}
	poll.Until(t, "the events to be handled", func() bool {
		code, x = f.reconcile("")
		_, handled, _, _, _ := x.Totals()
		return handled == 4
	})
	if wantTotals(t, x, 4, 4, 0, 0, 0); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

// A deleted row of position is found: the consumer's group has read past the event. It is not sent again: it was handled. With a
// position that says that it was not, it is.
func TestReconcileFindsADeletedPosition(t *testing.T) {
	t.Parallel()
	f := newFlow(t, nil)
	id := f.publish("order.placed", "4711")
	f.Settle()
	f.FastForward(2 * time.Minute)
	if _, err := f.billing.Pool.Exec(t.Context(), "DELETE FROM position"); err != nil {
		t.Fatal(err)
	}
	var x operate.Reconciliation
	poll.Until(t, "the group's offset to be stored", func() bool { _, x = f.reconcile("--mend"); return len(x.Missing) == 1 })
	if cause(x, id) != operate.MissingUnrecorded || x.Mended != 0 {
		t.Errorf("%+v", x)
	}
	if _, err := f.billing.Pool.Exec(t.Context(), "INSERT INTO position VALUES ('bills', 'shop', 'orders', '4711', 0)"); err != nil {
		t.Fatal(err)
	}
	if _, x = f.reconcile("--mend"); cause(x, id) != operate.MissingPassed || x.Mended != 1 {
		t.Errorf("with a position: %+v", x)
	}
	poll.Until(t, "the event to be handled", func() bool {
		_, x := f.reconcile("")
		_, handled, _, _, _ := x.Totals()
		return handled == 1
	})
}

// What waits is counted with its reason; without a broker, what nothing is recorded of is not known, and never counted as fine.
func TestReconcileSaysWhyEventsWait(t *testing.T) {
	t.Parallel()
	f := newFlow(t, func(e rocketflow.Event) error {
		if e.Subject == "poison" && e.Type == "order.seen" {
			return handlers.Dead(errors.New("no such article"))
		}
		return nil
	})
	f.publish("order.seen", "poison")
	f.publish("order.changed", "poison")
	f.publish("order.changed", "poison")
	f.Settle()
	f.billing.Stop()
	f.publish("order.placed", "unread")
	f.publish("order.closed", "4711") // nobody has a handler
	owed := f.publish("order.placed", "owed")
	f.acked(owed)
	f.shop.Stop() // it would send the event again
	if _, err := f.shop.Pool.Exec(t.Context(), "DELETE FROM outbox_ack WHERE id = $1", owed); err != nil {
		t.Fatal(err)
	}
	f.FastForward(2 * time.Minute)
	x, err := f.system(nil).Reconcile(t.Context(), operate.ReconcileConfig{})
	if err != nil {
		t.Fatal(err)
	}
	wantTotals(t, *x, 6, 0, 4, 0, 1)
	if x.Broker == "" {
		t.Error("it doesn't say that the broker wasn't asked")
	}
	f.shop.Start()
	f.acked(owed)
	f.FastForward(2 * time.Minute)
	_, got := f.reconcile("--expect mailing=orders")
	wantTotals(t, got, 6, 0, 5+6, 0, 0)
	bills, mailing := got.Consumers[0], got.Consumers[1]
	if bills.Parked[operate.StateDead] != 1 || bills.Parked[operate.StateGap] != 2 || bills.Unread != 2 || bills.Never || bills.Oldest.IsZero() {
		t.Errorf("bills: %+v", bills)
	}
	if mailing.Consumer != "mailing" || !mailing.Never || mailing.Unread != 6 {
		t.Errorf("a consumer that was never started: %+v", mailing)
	}
	if len(got.Unclaimed) != 0 { // mailing may have a handler
		t.Errorf("unclaimed: %+v", got.Unclaimed)
	}
	_, got = f.reconcile("")
	if len(got.Unclaimed) != 1 || got.Unclaimed[0] != (operate.UnclaimedType{Topic: "orders", Type: "order.closed", Events: 1}) {
		t.Errorf("unclaimed: %+v", got.Unclaimed)
	}
	_, text, _ := f.line("reconcile --expect mailing=orders")
	for _, part := range []string{"1 dead, 2 parked (gap), 2 unread", "it was never started", "total: 6 published"} {
		if !strings.Contains(text, part) {
			t.Errorf("it doesn't say %q:\n%s", part, text)
		}
	}
}

// A handler that was added later isn't missing the events from before.
func TestReconcileKnowsSinceWhenAHandlerIsThere(t *testing.T) {
	t.Parallel()
	f := newFlow(t, nil)
	loose := f.publish("order.closed", "")
	f.publish("order.closed", "4711")
	f.publish("order.seen", "")
	f.Settle()
	f.acked(loose)
	f.FastForward(2 * time.Minute)
	if _, err := f.billing.Pool.Exec(t.Context(), "INSERT INTO consumer_handler (consumer, topic, type) VALUES ('bills', 'orders', 'order.closed')"); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the group's offsets to be stored", func() bool { // until then it may be unread
		_, x := f.reconcile("")
		if len(x.Missing) > 0 {
			t.Fatalf("missing: %+v", x.Missing)
		}
		return x.Consumers[0].Waiting() == 0
	})
	wantVerdict(t, f.why(loose.String(), true).Verdict, operate.VerdictDone)
}

// A consumer that is registered but whose group has never read the topic was never started.
func TestReconcileFindsAConsumerThatNeverRead(t *testing.T) {
	t.Parallel()
	f := newFlow(t, nil)
	_, err := f.billing.Pool.Exec(t.Context(), `WITH c AS (INSERT INTO consumer (name, group_name) VALUES ('mailing', 'billing-mailing')),
		t AS (INSERT INTO consumer_topic (consumer, topic) VALUES ('mailing', 'orders'))
		INSERT INTO consumer_handler (consumer, topic, type) VALUES ('mailing', 'orders', 'order.placed')`)
	if err != nil {
		t.Fatal(err)
	}
	id := f.publish("order.placed", "4711")
	f.Settle()
	f.acked(id)
	f.FastForward(2 * time.Minute)
	_, x := f.reconcile("")
	if m := x.Consumers[1]; m.Consumer != "mailing" || !m.Never || m.Unread != 1 {
		t.Errorf("%+v", x.Consumers)
	}
	wantVerdict(t, f.why(id.String(), true).Verdict, operate.VerdictStopped, "mailing of billing to read it", "has never read the topic")
}

// A continuous reconciliation reads new events only, finds an event of a transaction that was open for long, and remembers what is open.
func TestWatchReadsWhatIsNew(t *testing.T) {
	t.Parallel()
	f := newFlow(t, nil)
	watch := f.system(f.client()).Watch(operate.ReconcileConfig{})
	// next makes passes until this many events were read: while another test's transaction is open, younger ones are not.
	next := func(published int) (x operate.Reconciliation) {
		t.Helper()
		f.FastForward(2 * time.Minute)
		poll.Succeeds(t, time.Minute, func() error {
			found, err := watch.Next(t.Context())
			if err != nil {
				return err
			}
			x = *found
			if n, _, _, _, _ := x.Totals(); n < published {
				return fmt.Errorf("%d events were read, want %d", n, published)
			}
			return nil
		})
		return x
	}
	f.publish("order.placed", "1")
	f.publish("order.seen", "")
	f.Settle()
	wantTotals(t, next(2), 2, 2, 0, 0, 0)
	f.publish("order.changed", "1")
	f.Settle()
	young, err := watch.Next(t.Context()) // within the grace
	if err != nil {
		t.Fatal(err)
	}
	wantTotals(t, *young, 2, 2, 0, 0, 0)

	release, done := make(chan struct{}), make(chan error, 1)
	begun := make(chan struct{})
	go func() {
		done <- f.shop.Tx.Within(context.Background(), func(ctx context.Context, tx rocketflow.Tx) error {
			if _, err := tx.Exec(ctx, "SELECT pg_current_xact_id()"); err != nil {
				return err
			}
			close(begun)
			<-release
			return tx.Publish(ctx, rocketflow.Event{Topic: "orders", Type: "order.placed", Subject: "late", Body: []byte(`{}`)})
		})
	}()
	<-begun
	f.publish("order.changed", "1")
	f.Settle()
	if x := next(2); !x.Partial {
		t.Errorf("it doesn't say that events are held back by an open transaction: %+v", x)
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	f.Settle()
	wantTotals(t, next(5), 5, 5, 0, 0, 0)

	f.billing.Stop()
	id := f.publish("order.changed", "1")
	f.acked(id)
	wantTotals(t, next(6), 6, 5, 1, 0, 0)
	wantTotals(t, next(6), 6, 5, 1, 0, 0)
	f.billing.Start()
	f.Settle()
	wantTotals(t, next(6), 6, 6, 0, 0, 0)
}

// Of two processes one reconciles, reports and sends what is lost again; when it stops the other takes over.
func TestOneProcessReconciles(t *testing.T) {
	t.Parallel()
	f := newFlow(t, nil)
	registry := prometheus.NewRegistry()
	count := metrics.New(registry).Reconciliation()
	type report struct {
		process int
		x       *operate.Reconciliation
	}
	reports := make(chan report, 1000)
	client := f.client()
	var processes [2]*operate.Reconciler
	for i := range processes {
		var err error
		processes[i], err = operate.NewReconciler(operate.ReconcilerConfig{
			Reconcile: operate.ReconcileConfig{Mend: true}, Pool: f.shop.Pool, Schema: f.shop.Schema, Schemas: []string{f.shop.Schema, f.billing.Schema},
			Broker: client, Every: time.Second, Clock: f.Clock(), Logger: slog.New(slog.DiscardHandler),
			Report: func(x *operate.Reconciliation, err error) {
				count(x, err)
				if x != nil {
					reports <- report{i, x}
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := processes[i].Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = processes[i].Stop(context.Background()) }()
	}
	f.publish("order.placed", "4711")
	f.Settle()
	f.billing.Stop()
	id := f.publish("order.seen", "")
	f.acked(id)
	f.RestartBroker(rocketmqtest.LoseUnflushed)
	f.billing.Start()
	f.FastForward(2 * time.Minute)
	owner, passes, mended := -1, 0, 0 // passes of the owner, one after the other
	until := func(what string, done func(r report) bool) {
		t.Helper()
		limit := time.After(time.Minute)
		for {
			select {
			case r := <-reports:
				if r.process != owner {
					owner, passes = r.process, 0
				}
				passes++
				mended += r.x.Mended
				if done(r) {
					return
				}
			case <-limit:
				t.Fatal("not within a minute: " + what)
			}
		}
	}
	missing := false
	until("the lost event is handled", func(r report) bool {
		_, handled, _, n, _ := r.x.Totals()
		missing = missing || n == 1
		return handled == 2
	})
	if !missing || mended == 0 {
		t.Errorf("missing %v, sent again %d", missing, mended)
	}
	until("one process makes three passes", func(report) bool { return passes >= 3 }) // the clock that was moved has ended the lease
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == "rocketflow_reconciliation_events" {
				states[m.GetLabel()[2].GetValue()+" for "+m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
			}
		}
	}
	if want := map[string]float64{"missing for bills": 0, "unknown for bills": 0, "waiting for bills": 0}; !maps.Equal(states, want) {
		t.Errorf("metrics: %v, want %v", states, want)
	}
	first := owner
	if err := processes[first].Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	until("the other process takes over", func(r report) bool { return r.process != first })
}

// The exit code says whether something is missing that was not sent again, or not known: of a schema that can't be read, too.
func TestReconcileExitCode(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		x    operate.Reconciliation
		want bool
	}{
		"nothing":                  {operate.Reconciliation{}, true},
		"missing":                  {operate.Reconciliation{Consumers: []operate.ConsumerReconciliation{{Missing: 2, Mended: 1}}}, false},
		"one event, two consumers": {operate.Reconciliation{Consumers: []operate.ConsumerReconciliation{{Missing: 1, Mended: 1}, {Missing: 1, Mended: 1}}, Mended: 1}, true},
		"unknown":                  {operate.Reconciliation{Consumers: []operate.ConsumerReconciliation{{Unknown: 1}}}, false},
		"unread":                   {operate.Reconciliation{Unread: []operate.UnreadSchema{{Schema: "billing"}}}, false},
		"partial":                  {operate.Reconciliation{Partial: true}, false},
	} {
		if got := isComplete(&c.x); got != c.want {
			t.Errorf("%s: complete %v", what, got)
		}
	}
	s := seed(t)
	if code, out, stderr := s.rf("reconcile"); code != exitOK {
		t.Errorf("%d\n%s%s", code, out, stderr)
	}
	further, other := testdb.Migrated(t)
	both := "reconcile --database " + testdb.URL(t) + " --database " + further.Config().ConnString() + " --schema " + other
	if code, out, stderr := s.rf(both); code != exitOK {
		t.Errorf("each schema is in one of the databases: %d\n%s%s", code, out, stderr)
	}
	if code, out, _ := s.rf(both + " --schema never_there"); code != exitFailure || !strings.Contains(out, "not read: schema never_there") {
		t.Errorf("a schema is in none of the databases: %d\n%s", code, out)
	}
	if code, out, _ := s.rf("reconcile --schema never_there"); code != exitFailure || !strings.Contains(out, "not read: schema never_there") || !strings.Contains(out, "0 missing; not read: 1 schema") {
		t.Errorf("%d\n%s", code, out)
	}
}

// The command that mends has the flags that the one before was given, but no password.
func TestReconcileNamesTheCommandThatMends(t *testing.T) {
	t.Parallel()
	f := reconcileFlags{expect: []string{"mailing=orders"}, config: operate.ReconcileConfig{Since: 2 * time.Hour, Grace: 30 * time.Second}}
	const want = "rocketflow reconcile --since 2h0m0s --grace 30s"
	if got := f.mendCommand(); got != want+" --expect mailing=orders --mend" {
		t.Errorf("got %s", got)
	}
	f.databases, f.schemas, f.broker = []string{"postgres://shop:secret@db/shop"}, []string{"shop"}, brokerFlags{"mq:9876;mq2:9876", "test"}
	if got := f.mendCommand(); got != want+" --namesrv 'mq:9876;mq2:9876' --namespace test --schema shop --expect mailing=orders --mend  # with the same --database" {
		t.Errorf("got %s", got)
	}
}

// Wrong flags are refused.
func TestReconcileRefusesWrongFlags(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"reconcile x", "reconcile --expect bills", "reconcile --grace 1s", "reconcile --since 10s", "reconcile --limit 0", "reconcile --watch --every 1ms"} {
		if code, _, stderr := runLine(line); code != exitUsage || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: %d %s", line, code, stderr)
		}
	}
}
