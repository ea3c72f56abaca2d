package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testbroker"
	"github.com/rocketflow/rocketflow/timeout"
)

// flow is two services on an embedded broker: shop publishes orders, and billing bills them.
type flow struct {
	*rocketflowtest.Env
	t             *testing.T
	shop, billing *rocketflowtest.Service
	fail          func(rocketflow.Event) error // of billing's handler
}

func newFlow(t *testing.T, fail func(rocketflow.Event) error) *flow {
	t.Helper()
	config := rocketflowtest.Config{}
	config.Broker.FlushInterval = time.Hour // a power failure loses all messages
	f := &flow{Env: rocketflowtest.New(t, config), t: t, fail: fail}
	topics := []broker.Topic{{Name: "orders", Queues: 2}}
	f.shop = f.Start(rocketflowfx.Config{Service: "shop", Topics: topics})
	f.billing = f.Start(rocketflowfx.Config{Service: "billing", Topics: topics}, fx.Invoke(func(r *handlers.Router) {
		handle := func(_ context.Context, _ rocketflow.Tx, e rocketflow.Event) error {
			if f.fail != nil {
				return f.fail(e)
			}
			return nil
		}
		for _, eventType := range []string{"order.placed", "order.changed", "order.seen"} {
			r.Handle("bills", "orders", eventType, handle)
		}
	}))
	return f
}

// publish publishes an event and returns its id; without a subject it has no order.
func (f *flow) publish(eventType, subject string) uuid.UUID {
	f.t.Helper()
	f.shop.Publish(rocketflow.Event{Topic: "orders", Type: eventType, Subject: subject, Body: []byte(`{}`)})
	var id uuid.UUID
	if err := f.shop.Pool.QueryRow(f.t.Context(), "SELECT id FROM outbox ORDER BY id DESC LIMIT 1").Scan(&id); err != nil {
		f.t.Fatal(err)
	}
	return id
}

func (f *flow) acked(ids ...uuid.UUID) {
	f.t.Helper()
	for _, id := range ids {
		poll.Until(f.t, "the broker's confirmation", func() bool {
			var n int
			err := f.shop.Pool.QueryRow(f.t.Context(), "SELECT count(*) FROM outbox_ack WHERE id = $1", id).Scan(&n)
			return err == nil && n == 1
		})
	}
}

// line runs a command line on both schemas and the broker.
func (f *flow) line(words string) (code int, out, stderr string) {
	f.t.Helper()
	return runLine(words + " --database " + f.DatabaseURL() + " --schema " + f.shop.Schema + " --schema " + f.billing.Schema + " --namesrv " + f.Broker().Addr())
}

// client returns a connection to the broker that ends with the test.
func (f *flow) client() *rocketmq.Client {
	f.t.Helper()
	return testbroker.Open(f.t, rocketmq.Config{NameServers: []string{f.Broker().Addr()}, Service: "test", Transport: rocketmq.Own})
}

// system reads both schemas and others, and asks a broker unless it is nil.
func (f *flow) system(client *rocketmq.Client, others ...*operate.Operator) *operate.System {
	f.t.Helper()
	config := operate.SystemConfig{Operators: others}
	if client != nil {
		config.Broker = client
	}
	for _, s := range []*rocketflowtest.Service{f.shop, f.billing} {
		c := operate.Config{Pool: s.Pool, Schema: s.Schema}
		if client != nil {
			c.Broker = client
		}
		o, err := operate.New(c)
		if err != nil {
			f.t.Fatal(err)
		}
		config.Operators = append(config.Operators, o)
	}
	y, err := operate.NewSystem(config)
	if err != nil {
		f.t.Fatal(err)
	}
	return y
}

func (f *flow) why(id string, askBroker bool) *operate.Explanation {
	f.t.Helper()
	if !askBroker { // for the command line, the environment may name a broker
		x, err := f.system(nil).Why(f.t.Context(), id)
		if err != nil {
			f.t.Fatal(err)
		}
		return x
	}
	code, out, stderr := f.line("why " + id + " --json")
	if code != exitOK {
		f.t.Fatalf("why %s: %d\n%s", id, code, stderr)
	}
	var x operate.Explanation
	if err := json.Unmarshal([]byte(out), &x); err != nil {
		f.t.Fatal(err)
	}
	_, text, _ := f.line("why " + id)
	f.t.Logf("%s", text)
	if lines := strings.Count(text, "\n"); lines > 45 {
		f.t.Errorf("%d lines don't fit on a screen", lines)
	}
	return &x
}

// wantLine fails unless a line of the time line is of a service and has all parts.
func wantLine(t *testing.T, x *operate.Explanation, service string, parts ...string) {
	t.Helper()
	if !slices.ContainsFunc(x.Timeline, func(e operate.Entry) bool {
		return e.Service == service && !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(e.Text, p) })
	}) {
		t.Errorf("no line of %s has %q: %+v", service, parts, x.Timeline)
	}
}

func wantVerdict(t *testing.T, v operate.Verdict, state operate.VerdictState, parts ...string) {
	t.Helper()
	text := fmt.Sprintf("%s for %s because %s: %s", v.What, v.For, v.Because, v.Command)
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("the verdict lacks %q: %+v", p, v)
		}
	}
	if v.State != state {
		t.Errorf("the verdict is %s, want %s: %+v", v.State, state, v)
	}
}

// The explanation of a handled event follows it from the transaction that published it to the consumer of another service.
func TestWhyFollowsAnEventAcrossServices(t *testing.T) {
	t.Parallel()
	f := newFlow(t, nil)
	ordered, loose := f.publish("order.placed", "4711"), f.publish("order.seen", "")
	f.Settle()
	f.acked(ordered, loose)
	for id, place := range map[uuid.UUID]string{ordered: "the first of its stream", loose: "without order"} {
		x := f.why(id.String(), true)
		wantLine(t, x, "shop", "published order.", "in transaction ", place)
		wantLine(t, x, "shop", "confirmed by the broker, by ")
		wantLine(t, x, "broker", "queue ", ", offset ")
		wantLine(t, x, "billing", "bills: handled", "after it was published")
		wantVerdict(t, x.Verdict, operate.VerdictDone, "bills of billing has handled it")
	}
	for path, text := range map[int]string{0: "path not recorded", 2: "by the relay", 3: "by the sweep", 4: "which a check-back committed"} {
		if _, err := f.shop.Pool.Exec(t.Context(), "UPDATE outbox_ack SET path = $1 WHERE id = $2", path, ordered); err != nil {
			t.Fatal(err)
		}
		wantLine(t, f.why(ordered.String(), false), "shop", "confirmed by the broker, ", text)
	}
	x := f.why("4711", true)
	wantLine(t, x, "shop", "published order.placed")
	wantLine(t, x, "billing", "bills: handled")
	wantVerdict(t, x.Verdict, operate.VerdictDone)

	// By the id of its message, as RocketMQ's tools show it: the unique key, or the broker's own.
	if x := f.why(fmt.Sprintf("%X", ordered[:]), false); x.Kind != operate.ExplainsEvent {
		t.Errorf("by the unique key: %+v", x)
	}
	stored, err := f.client().FindMessages(t.Context(), "orders", ordered.String(), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	if err != nil || len(stored) != 1 {
		t.Fatalf("found %v, %v", stored, err)
	}
	if x := f.why(stored[0].OffsetID, true); x.Kind != operate.ExplainsEvent || !strings.Contains(x.Title, ordered.String()) {
		t.Errorf("by the broker's id %s: %+v", stored[0].OffsetID, x)
	}
	if x := f.why(stored[0].OffsetID, false); x.Kind != operate.ExplainsNothing || !strings.Contains(x.Broker, "not asked") {
		t.Errorf("by the broker's id, without a broker: %+v", x)
	}
}

// A dead letter holds back the stream: each of its events, and the subject, names it, its error and the command, which mends it.
func TestWhyNamesTheDeadLetterThatHoldsTheStream(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	broken.Store(true)
	f := newFlow(t, nil)
	f.fail = func(e rocketflow.Event) error {
		if broken.Load() && e.Type == "order.seen" {
			return handlers.Dead(errors.New("no such article: 8"))
		}
		return nil
	}
	f.publish("order.placed", "4711")
	f.Settle()
	poison := f.publish("order.seen", "4711")
	var follower uuid.UUID
	for range 20 {
		follower = f.publish("order.changed", "4711")
	}
	f.Settle()
	for _, id := range []string{poison.String(), follower.String(), "4711"} {
		wantVerdict(t, f.why(id, true).Verdict, operate.VerdictStopped, "no such article: 8", "rocketflow redrive retry --consumer bills --event "+poison.String(), f.billing.Schema)
	}
	if x := f.why(poison.String(), true); !strings.Contains(x.Verdict.Because, "20 events of the stream held behind it") {
		t.Errorf("it doesn't say what is held behind: %+v", x.Verdict)
	}
	broken.Store(false)
	command := f.why("4711", true).Verdict.Command
	if code, out, stderr := runLine(strings.TrimPrefix(command, "rocketflow ") + " --database-url " + f.DatabaseURL()); code != exitOK {
		t.Fatalf("%s: %s%s", command, out, stderr)
	}
	f.Settle()
	wantVerdict(t, f.why(follower.String(), true).Verdict, operate.VerdictDone)
	wantVerdict(t, f.why("4711", true).Verdict, operate.VerdictDone)
	for _, id := range []string{poison.String(), "4711"} {
		wantLine(t, f.why(id, true), "billing", "operator ", " retried the dead letter")
	}
}

// An event that is handled after failures says at which attempt, and the next one of its stream says nothing of them.
func TestWhySaysHowManyAttemptsItTook(t *testing.T) {
	t.Parallel()
	f := newFlow(t, nil)
	var failures sync.Map
	f.fail = func(e rocketflow.Event) error {
		n, _ := failures.LoadOrStore(e.ID, new(atomic.Int32))
		if e.Type != "order.changed" && n.(*atomic.Int32).Add(1) <= 2 {
			return errors.New("no answer")
		}
		return nil
	}
	ids := []uuid.UUID{f.publish("order.placed", "4711"), f.publish("order.seen", "")}
	f.Settle()
	for _, id := range ids {
		poll.Until(t, "the event to be handled", func() bool {
			f.FastForward(10 * time.Minute)
			return f.why(id.String(), false).Verdict.State == operate.VerdictDone
		})
		wantLine(t, f.why(id.String(), false), "billing", "bills: handled at attempt 3")
	}
	next := f.publish("order.changed", "4711")
	f.Settle()
	x := f.why(next.String(), false)
	wantLine(t, x, "billing", "bills: handled")
	if slices.ContainsFunc(x.Timeline, func(e operate.Entry) bool { return strings.Contains(e.Text, "at attempt") }) {
		t.Errorf("the next event was handled at once: %+v", x.Timeline)
	}
}

// An event that no consumer has read is in its queue, or lost: only the broker can tell which, and why says if it wasn't asked.
func TestWhyAsksTheBroker(t *testing.T) {
	t.Parallel()
	f := newFlow(t, nil)
	f.publish("order.placed", "1") // the group has read something
	f.Settle()
	f.billing.Stop()
	ordered, loose := f.publish("order.placed", "4711"), f.publish("order.seen", "")
	f.acked(ordered, loose)
	for _, id := range []uuid.UUID{ordered, loose} {
		x := f.why(id.String(), false)
		wantVerdict(t, x.Verdict, operate.VerdictUnknown, "bills of billing to read it", "not asked", "--namesrv")
		if !strings.Contains(x.Broker, "not asked") {
			t.Errorf("it doesn't say that the broker wasn't asked: %q", x.Broker)
		}
		wantVerdict(t, f.why(id.String(), true).Verdict, operate.VerdictWaiting, "bills of billing to read it", "unread in queue", "group billing-bills", "a process of billing runs")
	}
	f.RestartBroker(rocketmqtest.LoseUnflushed)
	f.FastForward(time.Minute) // the broker's index may be late
	f.billing.Start()
	client := f.client()
	poll.Until(t, "the consumer to notice that its offsets are beyond the queues", func() bool {
		positions, err := client.QueuePositions(t.Context(), "billing-bills", "orders")
		return err == nil && !slices.ContainsFunc(positions, func(p broker.QueuePosition) bool { return p.Committed > p.End })
	})
	for _, id := range []uuid.UUID{ordered, loose} {
		v := f.why(id.String(), true).Verdict
		wantVerdict(t, v, operate.VerdictLost, "holds it no more", "rocketflow resend --event "+id.String()+" --schema "+f.shop.Schema)
		if code, out, stderr := runLine(strings.TrimPrefix(v.Command, "rocketflow ") + " --database-url " + f.DatabaseURL() + " --namesrv " + f.Broker().Addr()); code != exitOK || !strings.Contains(out, "sent 1 event") {
			t.Errorf("%s: %s%s", v.Command, out, stderr)
		}
	}
	for _, id := range []uuid.UUID{ordered, loose} {
		poll.Until(t, "the event to be handled", func() bool { return f.why(id.String(), true).Verdict.State == operate.VerdictDone })
	}
	// Rows that were deleted by hand leave an event that the group has read, and that nobody has handled.
	if _, err := f.billing.Pool.Exec(t.Context(), "DELETE FROM position WHERE subject = '4711'"); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the group's offset to be stored", func() bool { return f.why(ordered.String(), true).Verdict.State == operate.VerdictLost })
	wantVerdict(t, f.why(ordered.String(), true).Verdict, operate.VerdictLost, "read past it", "position")
}

// An event that the broker has not confirmed is owed.
func TestWhyOfAnOwedEvent(t *testing.T) {
	t.Parallel()
	f := newFlow(t, nil)
	f.Broker().Pause()
	id := f.publish("order.placed", "4711")
	for _, of := range []string{id.String(), "4711"} {
		wantVerdict(t, f.why(of, false).Verdict, operate.VerdictWaiting, "the broker's confirmation", "rocketflow inspect backlog")
	}
	f.Broker().Resume()
	f.Settle()
}

// A saga's explanation has its transitions and its deadline, whether that is to come or has fired.
func TestWhyOfASaga(t *testing.T) {
	t.Parallel()
	f := &flow{Env: rocketflowtest.New(t), t: t}
	d := saga.Define[cart]("purchase", 1).Initial("open").
		Deadline("open", "closed", func(*cart) time.Time { return f.Now().Add(time.Hour) }, nil).
		Final("paid", "closed")
	saga.On(d, "open", "paid", func(context.Context, rocketflow.Tx, *cart, paid) error { return nil })
	var orders *saga.Saga[cart]
	config := rocketflowfx.Config{Service: "shop", Topics: []broker.Topic{{Name: "payments"}, {Name: "orders"}}}
	config.Saga.TimeoutTopic = "order-timeouts"
	f.shop = f.Start(config, fx.Provide(func(e *saga.Engine) (*saga.Saga[cart], error) { return saga.Register(e, d) }), fx.Populate(&orders))
	f.billing = f.shop
	f.shop.Within(func(ctx context.Context, tx rocketflow.Tx) error { return orders.Begin(ctx, tx, "4711", cart{}) })
	f.Settle()
	x := f.why("4711", true)
	wantLine(t, x, "shop", "saga purchase of 4711 began in open")
	wantLine(t, x, "shop", "deadline", "armed for")
	wantVerdict(t, x.Verdict, operate.VerdictWaiting, "the deadline of saga purchase of 4711 in state open", "fires in ")
	f.FastForward(2 * time.Hour)
	x = f.why("4711", true)
	wantLine(t, x, "shop", "open → closed, because its deadline fired")
	wantVerdict(t, x.Verdict, operate.VerdictDone, "has finished in closed")
}

// An unknown id is explained by where it was looked for, and what the retention would have removed.
func TestWhyOfAnUnknownID(t *testing.T) {
	t.Parallel()
	f := newFlow(t, nil)
	f.publish("order.placed", "4711")
	f.Settle()
	wantVerdict(t, f.why("no-such-order", true).Verdict, operate.VerdictUnknown, "no schema that was read has an event")
	old := uuid.UUID{0x01, 0x80, 0, 0, 0, 0, 0x70, 0, 0x80}
	x := f.why(old.String(), true)
	wantVerdict(t, x.Verdict, operate.VerdictUnknown, "the retention has removed it")
	if len(x.Looked) != 2 || x.Looked[1].Service != "shop" || x.Looked[1].OldestEvent.IsZero() || x.Looked[0].InboxRetention != 7*24*time.Hour {
		t.Errorf("it looked in %+v", x.Looked)
	}
	wantVerdict(t, f.why(uuid.Must(uuid.NewV7()).String(), true).Verdict, operate.VerdictUnknown, "rolled back or is still open")
	code, out, _ := f.line("why no-such-order")
	if code != exitOK || !strings.Contains(out, "looked in") || !strings.Contains(out, f.shop.Schema) {
		t.Errorf("%d\n%s", code, out)
	}
}

// What can be read is explained, and what can't be is named: a schema that lost its tables, and a database that doesn't answer.
func TestWhyGoesOnWithoutWhatCanNotBeRead(t *testing.T) {
	t.Parallel()
	f := newFlow(t, nil)
	id := f.publish("order.placed", "4711")
	f.Settle()
	away := "postgres://nobody@127.0.0.1:1/gone?connect_timeout=2"
	code, out, stderr := f.line("why 4711 --database " + away)
	if code != exitOK || !strings.Contains(out, "order.placed") || !strings.Contains(out, "not read: schema *: ") || !strings.Contains(out, "127.0.0.1:1") ||
		!strings.Contains(out, "1 schema could not be read") {
		t.Errorf("%d\n%s%s", code, out, stderr)
	}
	if code, _, stderr := runLine("why 4711 --database " + away + " --database " + away); code == exitOK || !strings.Contains(stderr, "127.0.0.1:1") {
		t.Errorf("no database can be read: %d\n%s", code, stderr)
	}
	if code, _, stderr := f.line("reconcile --database " + away); code == exitOK || !strings.Contains(stderr, "127.0.0.1:1") {
		t.Errorf("a reconciliation needs all: %d\n%s", code, stderr)
	}

	// One that could be read when the program began.
	gone, err := operate.New(operate.Config{Pool: f.shop.Pool, Schema: "never_there"})
	if err != nil {
		t.Fatal(err)
	}
	x, err := f.system(nil, gone).Why(t.Context(), id.String())
	if err != nil || len(x.Unread) != 1 || x.Unread[0].Schema != "never_there" || len(x.Looked) != 2 || x.Kind != operate.ExplainsEvent {
		t.Errorf("%v: %+v", err, x)
	}
	y, err := operate.NewSystem(operate.SystemConfig{Operators: []*operate.Operator{gone}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := y.Why(t.Context(), id.String()); err == nil || !strings.Contains(err.Error(), "never_there") {
		t.Errorf("no schema can be read: %v", err)
	}
}

// A wrong command line is refused before anything is read.
func TestWhyRefusesWrongArguments(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"why", "why a b", "why x --lines 0"} {
		if code, _, stderr := runLine(line); code != exitUsage || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: %d %s", line, code, stderr)
		}
	}
	if code, _, stderr := runLine("why x --schema no_such_schema"); code != exitFailure || !strings.Contains(stderr, "no_such_schema") {
		t.Errorf("%d %s", code, stderr)
	}
}

// A timeout's explanation says when it was armed, for when, and what became of it, by its key and by the ids of its events.
func TestWhyOfTimeouts(t *testing.T) {
	t.Parallel()
	f := &flow{Env: rocketflowtest.New(t), t: t}
	var timeouts *timeout.Scheduler
	config := rocketflowfx.Config{Service: "shop", Topics: []broker.Topic{{Name: "order-timeouts", Kind: broker.Delay}}}
	f.shop = f.Start(config, fx.Populate(&timeouts), fx.Invoke(func(r *handlers.Router) {
		r.Handle("closing", "order-timeouts", "unpaid.late", func(context.Context, rocketflow.Tx, rocketflow.Event) error { return nil })
	}))
	f.billing = f.shop
	in := func(fn func(ctx context.Context, tx rocketflow.Tx) error) { f.shop.Within(fn) }
	arm := func(key string) {
		in(func(ctx context.Context, tx rocketflow.Tx) error {
			return timeouts.Arm(ctx, tx, key, "payment", f.Now().Add(time.Hour), unpaid{key})
		})
	}
	arm("o-1")
	arm("o-2")
	in(func(ctx context.Context, tx rocketflow.Tx) error {
		_, err := timeouts.Move(ctx, tx, "o-1", "payment", f.Now().Add(2*time.Hour))
		return err
	})
	in(func(ctx context.Context, tx rocketflow.Tx) error {
		_, err := timeouts.Disarm(ctx, tx, "o-2", "payment")
		return err
	})
	x := f.why("o-1", true)
	wantLine(t, x, "shop", "timeout payment of o-1: moved from")
	wantVerdict(t, x.Verdict, operate.VerdictWaiting, "it fires in 2h")
	moved := x.Timeline[0].EventID
	f.FastForward(3 * time.Hour)

	x = f.why("o-1", true)
	wantLine(t, x, "shop", "timeout payment of o-1: fired, ", "after it was due, handled by closing")
	wantVerdict(t, x.Verdict, operate.VerdictDone, "timeout payment of o-1 fired")
	fired := x.Timeline[len(x.Timeline)-1].EventID
	x = f.why(fired.String(), true)
	wantLine(t, x, "shop", "timeout payment of o-1: fired, ")
	wantVerdict(t, x.Verdict, operate.VerdictDone, "timeout payment of o-1 fired")
	wantVerdict(t, f.why(moved.String(), true).Verdict, operate.VerdictDone, "was moved before it fired", "why "+fired.String())
	x = f.why("o-2", true)
	wantLine(t, x, "shop", "timeout payment of o-2: armed for")
	wantVerdict(t, x.Verdict, operate.VerdictDone, "timeout payment of o-2 was disarmed")
	code, out, _ := f.inspect("event " + fired.String())
	if code != exitOK || !strings.Contains(out, "payment of o-1: fired") {
		t.Errorf("%d\n%s", code, out)
	}
	code, out, _ = f.inspect("timeouts o-2 --ended")
	if code != exitOK || !strings.Contains(out, "disarmed") {
		t.Errorf("%d\n%s", code, out)
	}
	if code, _, stderr := f.inspect("timeouts --ended"); code != exitUsage || !strings.Contains(stderr, "KEY is missing") {
		t.Errorf("%d\n%s", code, stderr)
	}
}

// inspect runs rocketflow inspect on the schema of shop.
func (f *flow) inspect(words string) (code int, out, stderr string) {
	f.t.Helper()
	return runLine("inspect " + words + " --schema " + f.shop.Schema)
}

type unpaid struct{ Order string }

func (u unpaid) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "order-timeouts", Type: "unpaid.late", Subject: u.Order}
}

// Of an event that a handler published, it is said what the handler handled, also in a batch, a savepoint, and a transaction with others.
func TestWhySaysWhatTheHandlerHandled(t *testing.T) {
	t.Parallel()
	f := &flow{Env: rocketflowtest.New(t), t: t}
	topics := []broker.Topic{{Name: "orders", Queues: 1}, {Name: "bills"}}
	f.shop = f.Start(rocketflowfx.Config{Service: "shop", Topics: topics})
	f.billing = f.Start(rocketflowfx.Config{Service: "billing", Topics: topics}, fx.Invoke(func(r *handlers.Router) {
		r.Handle("bills", "orders", "order.placed", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
			bill := func(kind string) rocketflow.Event {
				return rocketflow.Event{Topic: "bills", Type: kind, Subject: e.Subject, Body: []byte(`"` + e.ID.String() + `"`)}
			}
			return errors.Join(
				tx.Publish(ctx, bill("bill.made"), bill("bill.printed")),
				pgx.BeginFunc(ctx, tx, func(sub pgx.Tx) error { return sub.(rocketflow.Tx).Publish(ctx, bill("bill.sent")) }),
			)
		})
	}))
	f.shop.Within(func(ctx context.Context, tx rocketflow.Tx) error {
		for i := range 10 {
			if err := tx.Publish(ctx, rocketflow.Event{Topic: "orders", Type: "order.placed", Subject: fmt.Sprint(4711 + i), Body: []byte(`{}`)}); err != nil {
				return err
			}
		}
		return nil
	})
	f.Settle()
	var right, all int
	if err := f.billing.Pool.QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE cause_consumer = 'bills' AND '"' || cause || '"' = convert_from(body, 'UTF8')), count(*)
		FROM outbox WHERE topic = 'bills'`).Scan(&right, &all); err != nil || all != 30 || right != all {
		t.Errorf("%d of %d events have their cause (%v)", right, all, err)
	}
	var placed int
	if err := f.shop.Pool.QueryRow(t.Context(), "SELECT count(*) FROM outbox WHERE topic = 'orders' AND cause IS NULL AND cause_consumer IS NULL").Scan(&placed); err != nil || placed != 10 {
		t.Errorf("%d events have no cause (%v)", placed, err)
	}
	var id, cause uuid.UUID
	if err := f.billing.Pool.QueryRow(t.Context(), "SELECT id, cause FROM outbox WHERE topic = 'bills' AND type = 'bill.sent' AND subject = '4711'").Scan(&id, &cause); err != nil {
		t.Fatal(err)
	}
	wantLine(t, f.why(id.String(), true), "billing", "published while bills handled order.placed "+cause.String())
	explained := f.why(cause.String(), true)
	for _, kind := range []string{"bill.made", "bill.printed", "bill.sent"} {
		wantLine(t, explained, "billing", "bills: published "+kind+" of 4711 to topic bills while it handled this")
	}
	code, out, stderr := runLine("inspect event " + id.String() + " --json --schema " + f.billing.Schema)
	if code != exitOK || !strings.Contains(out, `"cause"`) || !strings.Contains(out, cause.String()) {
		t.Errorf("%d\n%s%s", code, out, stderr)
	}
}
