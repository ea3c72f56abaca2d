package incidents

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/internal/partition"
	"github.com/rocketflow/rocketflow/migrations"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// doctor examines the services of the test, and not what other tests do on the same servers.
func (w *world) doctor(flags string) string {
	return "rocketflow doctor" + w.schemas() + others + flags
}

// others leaves out what other tests show that run on the same PostgreSQL: their transactions, which are old by a clock that is ahead.
const others = " --skip postgres-long-transaction --skip postgres-idle-transaction"

// healthy waits until a check has no finding any more.
func (w *world) healthy(flags, check string) {
	w.t.Helper()
	poll.Until(w.t, "no finding of "+check, func() bool {
		out, err := w.shell(w.doctor(flags) + " --all --only " + check)
		return err == nil && strings.Contains(out, "0 findings, 0 not known, ")
	})
}

// An event that billing can never handle holds 500 later events of its order.
func TestPoisonEventWithFollowers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, rocketflowtest.Config{})
	w.startBilling()
	broken := func(e rocketflow.Event) error {
		if e.Type == "order.placed" {
			return handlers.Dead(errors.New("no such article: 8"))
		}
		return nil
	}
	w.bill.Store(&broken)
	poison := w.publish("order.placed", "4711")
	const followers = 500
	for range followers / 50 {
		var events []rocketflow.Payload
		for range 50 {
			events = append(events, rocketflow.Event{Topic: "orders", Type: "order.changed", Subject: "4711", Body: []byte(`{}`)})
		}
		w.shop.Publish(events...)
	}
	w.Settle()
	retry := "rocketflow redrive retry --consumer bills --event " + poison.String()
	w.shows(w.doctor(""), "consumer-dead-letters", "1 dead letter", "rocketflow redrive list --consumer bills")
	shown := w.shows("rocketflow why 4711"+w.schemas(), "stopped", "no such article: 8", "500 events of the stream held behind it", retry)
	w.bill.Store(nil) // billing is mended
	w.mends(shown, retry)
	w.handlesAll(followers + 1)
	w.shows("rocketflow why 4711"+w.schemas(), "verdict: done")
}

// Billing was never started: nobody reads what shop publishes.
func TestConsumerNeverStarted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, rocketflowtest.Config{})
	id := w.publish("order.placed", "4711")
	w.confirmed()
	w.FastForward(2 * time.Minute)
	w.shows(w.doctor(" --skip host-clock"), "outbox-unread", "nobody reads topic orders", "# start the service that consumes topic orders")
	w.shows("rocketflow why "+id.String()+w.schemas(), "waits for a consumer", "reads topic orders")
	w.shows("rocketflow reconcile --expect bills=orders"+w.schemas(), "bills", "it was never started")
	w.startBilling()
	w.handlesAll(1)
	w.reconciled()
	w.shows("rocketflow why "+id.String()+w.schemas(), "verdict: done")
}

// The broker keeps messages for two hours, and its limit stands for their end: it has deleted some before billing, which was stopped, could
// read them.
func TestBrokerRetentionTooShort(t *testing.T) {
	t.Parallel()
	w := newWorld(t, rocketflowtest.Config{Broker: rocketmqtest.Config{MaxMessageSize: 64 << 10, MaxBytes: 160 << 10}})
	w.set("fileReservedTime", "2")
	w.startBilling()
	w.publish("order.placed", "first")
	w.Settle()
	w.billing.Stop()
	const events = 40
	body := []byte(`"` + strings.Repeat("x", 3<<10) + `"`) // not so large that the driver compresses it
	for n := range events {
		w.shop.Publish(rocketflow.Event{Topic: "orders", Type: "order.placed", Subject: strconv.Itoa(n), Body: body})
	}
	w.confirmed()
	shown := w.shows(w.doctor(""), "broker-retention-short", "messages are kept for 2h", "consumer-loss", "deleted by the broker")
	if strings.Contains(shown, "consumer-lag") {
		t.Error("what the broker has deleted is taken for old unread messages")
	}
	w.mends(shown, "mqadmin updateBrokerConfig")
	w.billing.Start()
	w.mends(shown, "rocketflow resend --topic orders")
	w.handlesAll(1 + events)
	w.FastForward(2 * time.Minute)
	w.reconciled()
	w.healthy("", "broker-retention-short")
	w.healthy("", "consumer-loss")
}

// The broker loses the last event of a stream, which no later event can show to be missing.
func TestLostLastEvent(t *testing.T) {
	t.Parallel()
	config := rocketflowtest.Config{}
	config.Broker.FlushInterval = time.Hour
	w := newWorld(t, config)
	w.startBilling()
	w.publish("order.placed", "4711")
	w.handlesAll(1)
	w.billing.Stop()
	last := w.publish("order.changed", "4711")
	w.confirmed()
	w.RestartBroker(rocketmqtest.LoseUnflushed)
	w.billing.Start()
	w.Settle()
	w.FastForward(2 * time.Minute)
	shown := ""
	poll.Until(t, "the consumer to notice that its offsets are beyond the queues", func() bool {
		shown, _ = w.shell("rocketflow reconcile" + w.schemas())
		return !strings.Contains(shown, "broker: ")
	})
	shown = w.shows("rocketflow reconcile"+w.schemas(), "1 missing", last.String(), "lost")
	w.shows("rocketflow why 4711"+w.schemas(), "lost", "holds it no more", "rocketflow resend --event "+last.String())
	w.mends(shown, "rocketflow reconcile --since")
	w.handlesAll(2)
	w.reconciled()
}

// The broker has lost an event of a stream and its publisher keeps it no longer, so that later events wait behind a gap.
func TestGapThatNobodyCanFill(t *testing.T) {
	t.Parallel()
	config := rocketflowtest.Config{}
	config.Broker.FlushInterval = time.Hour
	w := newWorld(t, config)
	w.startBilling()
	w.publish("order.placed", "4711")
	w.handlesAll(1)
	w.Settle()
	w.billing.Stop()
	gone := w.publish("order.changed", "4711")
	w.confirmed()
	w.RestartBroker(rocketmqtest.LoseUnflushed)
	w.exec("DELETE FROM outbox WHERE id = '" + gone.String() + "'")
	w.billing.Start()
	poll.Until(t, "the consumer to notice that its offsets are beyond the queues", func() bool {
		positions, err := w.client().QueuePositions(t.Context(), "billing-bills", "orders")
		return err == nil && !slices.ContainsFunc(positions, func(p broker.QueuePosition) bool { return p.Committed > p.End })
	})
	w.publish("order.changed", "4711")
	poll.Until(t, "the event to be parked", func() bool {
		var n int
		err := w.billing.Pool.QueryRow(t.Context(), "SELECT count(*) FROM parked").Scan(&n)
		return err == nil && n == 1
	})
	w.FastForward(2 * time.Hour)
	w.shows(w.doctor(" --skip host-clock"), "consumer-parked", "1 event parked (gap)")
	shown := w.shows("rocketflow why 4711"+w.schemas(), "stopped", "of its stream in bills", "it has not come")
	w.mends(shown, "rocketflow redrive accept")
	w.handlesAll(2)
}

// A process dies between its commit and the commit of its half message, and no other process of the service runs.
func TestHalfMessageOfAKilledProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t, rocketflowtest.Config{})
	w.startBilling()
	w.shop.Stop()
	w.killPublisher()
	w.FastForward(10 * time.Minute)
	poll.Until(t, "the broker to check back twice", func() bool {
		out, _ := w.shell("rocketflow doctor --only broker-half-messages" + w.schemas())
		return strings.Contains(out, "1 finding")
	})
	w.shows(w.doctor(" --skip host-clock"), "outbox-sweep", "no process sweeps, and 1 event owed", "# start a process of service shop", "broker-half-messages", "1 half message without a decision")
	w.shows("rocketflow why 4711"+w.schemas(), "waits for the broker's confirmation", "no process of shop runs")
	w.shop.Start()
	w.handlesAll(1)
	w.shows("rocketflow why 4711"+w.schemas(), "verdict: done")
}

// An operator has paused the consumer, and has forgotten it.
func TestPausedConsumer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, rocketflowtest.Config{})
	w.startBilling()
	w.publish("order.placed", "4711")
	w.handlesAll(1)
	if out, err := w.shell("rocketflow pause --consumer bills --reason 'the bank is away' --schema " + w.billing.Schema); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	poll.Until(t, "the consumer to notice", func() bool {
		out, _ := w.shell("rocketflow doctor --only consumer-paused" + w.schemas())
		return strings.Contains(out, "1 finding")
	})
	id := w.publish("order.changed", "4711")
	w.confirmed()
	w.Advance(2 * time.Hour) // it can't settle
	shown := w.shows(w.doctor(" --skip host-clock"), "consumer-paused", "the consumer is paused for 2h", "the bank is away")
	w.shows("rocketflow why "+id.String()+w.schemas(), "stopped", "the bank is away", "rocketflow resume --consumer bills")
	w.shows("rocketflow reconcile --since 3h"+w.schemas(), "is paused by ")
	w.mends(shown, "rocketflow resume --consumer bills")
	w.handlesAll(2)
}

// A right of the service's role was revoked.
func TestWrongGrant(t *testing.T) {
	t.Parallel()
	w := newWorld(t, rocketflowtest.Config{})
	role := testdb.Role(t)
	w.exec("GRANT USAGE ON SCHEMA " + w.shop.Schema + " TO " + role)
	w.exec("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA " + w.shop.Schema + " TO " + role)
	w.exec("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA " + w.shop.Schema + " TO " + role)
	w.exec("REVOKE INSERT ON outbox FROM " + role)
	box, err := outbox.New(outbox.Config{Pool: testdb.As(t, w.shop.Pool, role), Schema: w.shop.Schema, Broker: w.client(), Source: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	if err := box.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = box.Stop(context.Background()) }()
	place := func() error {
		return box.Within(t.Context(), func(ctx context.Context, tx rocketflow.Tx) error {
			return tx.Publish(ctx, rocketflow.Event{Topic: "orders", Type: "order.placed", Subject: "4711", Body: []byte(`{}`)})
		})
	}
	if err := place(); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Fatalf("got %v", err)
	}
	shown := w.shows(w.doctor(" --role "+role), "postgres-rights", "lacks INSERT on outbox")
	for _, statement := range []string{"GRANT USAGE", "GRANT SELECT", "GRANT EXECUTE"} {
		w.mends(shown, statement)
	}
	if err := place(); err != nil {
		t.Error(err)
	}
	w.healthy(" --role "+role, "postgres-rights")
}

// The partition of tomorrow is missing.
func TestMissingPartitionIsNamedAndMade(t *testing.T) {
	t.Parallel()
	w := newWorld(t, rocketflowtest.Config{})
	poll.Until(t, "the service has made its partitions, which it does again in an hour", func() bool {
		var done bool
		err := w.shop.Pool.QueryRow(t.Context(), "SELECT begun_at > '-infinity' FROM outbox_retention").Scan(&done)
		return err == nil && done
	})
	day := partition.Table{Schema: w.shop.Schema, Name: "outbox"}.Day(time.Now().AddDate(0, 0, 1))
	w.exec("DROP TABLE " + day.Quoted())
	shown := w.shows(w.doctor(""), "postgres-partitions", "missing: "+day.Name)
	w.mends(shown, "SELECT \""+w.shop.Schema+"\".\"make_partition\"")
	w.healthy("", "postgres-partitions")
}

// The tables are those of the version before.
func TestSchemaOneMigrationBehind(t *testing.T) {
	t.Parallel()
	w := newWorld(t, rocketflowtest.Config{})
	w.shop.Stop()
	if err := migrations.Down(t.Context(), w.shop.Pool, w.shop.Schema); err != nil {
		t.Fatal(err)
	}
	migrate := "rocketflow migrate up --schema " + w.shop.Schema
	shown := w.shows(w.doctor(""), "postgres-migrated", migrate)
	w.shows("rocketflow why 4711"+w.schemas(), w.shop.Schema, "rocketflow migrate up")
	w.mends(shown, migrate)
	w.shop.Start()
	w.publish("order.placed", "4711")
	w.confirmed()
	w.healthy("", "postgres-migrated")
}

// purchase is the state of a saga.
type purchase struct{}

// payment is the event that a purchase waits for.
type payment struct {
	Order string `json:"order"`
}

func (p payment) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: "payments", Type: "payment.made", Subject: p.Order}
}

// startShop starts shop anew, with sagas that wait for payments.
func (w *world) startShop(d *saga.Definition[purchase]) *saga.Saga[purchase] {
	w.t.Helper()
	saga.On(d, "open", "paid", func(context.Context, rocketflow.Tx, *purchase, payment) error { return nil })
	var purchases *saga.Saga[purchase]
	config := rocketflowfx.Config{Service: "purchases", Topics: []broker.Topic{{Name: "payments"}, orders[0]}}
	config.Saga.TimeoutTopic = "purchase-timeouts"
	w.shop = w.Start(config, fx.Provide(func(e *saga.Engine) (*saga.Saga[purchase], error) { return saga.Register(e, d) }), fx.Populate(&purchases))
	return purchases
}

// A saga waits for long, because another service can't publish the event that it waits for.
func TestSagaPastItsTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, rocketflowtest.Config{})
	purchases := w.startShop(saga.Define[purchase]("purchase", 1).Initial("open").NoDeadline("open").Final("paid"))
	var broken atomic.Bool
	broken.Store(true)
	w.billing = w.Start(rocketflowfx.Config{Service: "billing", Topics: []broker.Topic{{Name: "payments"}, orders[0]}}, fx.Invoke(func(r *handlers.Router) {
		r.Handle("bills", "orders", "order.placed", func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
			if broken.Load() {
				return handlers.Dead(errors.New("no such card"))
			}
			return tx.Publish(ctx, payment{Order: e.Subject})
		})
	}))
	w.shop.Within(func(ctx context.Context, tx rocketflow.Tx) error {
		if err := purchases.Begin(ctx, tx, "4711", purchase{}); err != nil {
			return err
		}
		return tx.Publish(ctx, rocketflow.Event{Topic: "orders", Type: "order.placed", Subject: "4711", Body: []byte(`{}`)})
	})
	w.Settle()
	w.FastForward(2 * time.Hour)
	shown := w.shows(w.doctor(" --skip host-clock --max-idle-saga 1h"), "saga-idle", "1 saga purchase version 1 in state open without a deadline", "consumer-dead-letters")
	if !strings.Contains(shown, "rocketflow why 4711") {
		t.Error("the doctor doesn't name the command that follows the saga")
	}
	shown = w.shows("rocketflow why 4711"+w.schemas(), "stopped", "no such card", "saga purchase of 4711")
	broken.Store(false)
	w.mends(shown, "rocketflow redrive retry --consumer bills")
	w.Settle()
	w.shows("rocketflow why 4711"+w.schemas(), "verdict: done", "open → paid")
}

// A saga's deadline is over, and no process of its service runs, so that it can't fire.
func TestSagaPastItsDeadline(t *testing.T) {
	t.Parallel()
	w := newWorld(t, rocketflowtest.Config{})
	w.shop.Stop()
	purchases := w.startShop(saga.Define[purchase]("purchase", 1).Initial("open").
		Deadline("open", "closed", func(*purchase) time.Time { return w.Now().Add(time.Hour) }, nil).Final("paid", "closed"))
	w.shop.Within(func(ctx context.Context, tx rocketflow.Tx) error { return purchases.Begin(ctx, tx, "4711", purchase{}) })
	w.Settle()
	w.shop.Stop()
	w.FastForward(2 * time.Hour)
	w.shows(w.doctor(" --skip host-clock"), "timeout-overdue", "1 timeout overdue")
	w.shows("rocketflow why 4711"+w.schemas(), "stopped", "the deadline of saga purchase of 4711", "no process of purchases runs")
	w.shop.Start()
	w.Settle()
	w.shows("rocketflow why 4711"+w.schemas(), "verdict: done", "because its deadline fired")
}
