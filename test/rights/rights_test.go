// Package rights tests, on brokers that require credentials, that services work with exactly the rights that docs/security.md
// lists, and that what a right is missing for is refused at once with an error that names it. It contains only tests.
package rights

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/internal/devstack"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/leaks"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testbroker"
	"github.com/rocketflow/rocketflow/test/testdb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, leaks.Known()...) }

const (
	publish   = "Pub"
	subscribe = "Sub"

	discarded = "TRANS_CHECK_MAX_TIME_TOPIC"
)

// roles returns the users of docs/security.md, with names that end with suffix: a service that publishes events on a topic, one that
// handles them, and one that does both and has timeouts. With operator there is one that creates topics: in RocketMQ 4 it has to be an
// administrator.
func roles(suffix string, operator bool) []rocketmqtest.User {
	user := func(name string, grants ...rocketmqtest.Grant) rocketmqtest.User {
		return rocketmqtest.User{Name: name + suffix, Secret: name + "-secret", Grants: grants}
	}
	on := func(resource string, actions ...string) rocketmqtest.Grant {
		return rocketmqtest.Grant{Resource: resource, Actions: actions}
	}
	orders := "Topic:orders" + suffix
	users := []rocketmqtest.User{
		user("publisher",
			on(orders, publish),
			on("Topic:"+rocketflow.MissingEventsTopic, subscribe), on("Group:publisher"+suffix+"_resend", subscribe),
			on("Topic:"+discarded, subscribe), on("Group:publisher"+suffix+"_discarded", subscribe)),
		user("consumer",
			on(orders, subscribe), on("Group:consumer"+suffix+"-invoices", subscribe),
			on("Topic:"+rocketflow.MissingEventsTopic, publish)),
		user("service", on("Topic:timeouts"+suffix, publish, subscribe), on("Group:service"+suffix+"-timeouts", subscribe)),
	}
	if operator {
		users = append(users, user("operator", on("Topic:*", "Create")))
	}
	return users
}

// TestLeastPrivilege runs on a real RocketMQ, or on the embedded broker with either version of access control.
func TestLeastPrivilege(t *testing.T) {
	admin := rocketmqtest.User{Name: "administrator", Secret: "administrator-secret"}
	if testbroker.Real() {
		mq := testbroker.StartRocketMQ(t, devstack.RocketMQConfig{
			Auth: &devstack.AuthConfig{Admin: admin, Users: users(testbroker.Is4())},
			// A half message without a decision is discarded after two checks.
			Properties: map[string]string{"transactionCheckMax": "2"},
		})
		leastPrivilege(t, mq.NameServer(), admin, testbroker.Is4())
		return
	}
	for name, version := range map[string]rocketmqtest.Version{"ACL 1.0": rocketmqtest.RocketMQ49, "ACL 2.0": rocketmqtest.RocketMQ53, "ACL 2.0 of 5.5": rocketmqtest.RocketMQ55} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			acl1 := version == rocketmqtest.RocketMQ49
			mq := rocketmqtest.RunT(t, rocketmqtest.Config{
				Version: version, Credentials: map[string]string{admin.Name: admin.Secret}, Users: users(acl1),
				CheckMax: 2, CheckInterval: time.Second, TransactionTimeout: 2 * time.Second, OpBatchInterval: 100 * time.Millisecond, TimerPrecision: 100 * time.Millisecond,
			})
			leastPrivilege(t, mq.Addr(), admin, acl1)
		})
	}
}

var transports = map[string]rocketmq.Transport{"-client": rocketmq.ClientGo, "-own": rocketmq.Own}

// users returns the users of all transports.
func users(acl1 bool) (all []rocketmqtest.User) {
	for suffix := range transports {
		all = append(all, roles(suffix, !acl1)...)
	}
	return all
}

// leastPrivilege checks what each role can do, and can't.
func leastPrivilege(t *testing.T, nameServer string, admin rocketmqtest.User, acl1 bool) {
	for suffix, transport := range transports {
		t.Run(transport.String(), func(t *testing.T) {
			as := func(name, secret string) *rocketmq.Client { return open(t, nameServer, transport, name, secret) }
			operator := admin
			if !acl1 {
				operator = rocketmqtest.User{Name: "operator" + suffix, Secret: "operator-secret"}
			}
			err := as(operator.Name, operator.Secret).CreateTopics(deadline(t, time.Minute),
				broker.Topic{Name: "orders" + suffix}, broker.Topic{Name: "timeouts" + suffix}, broker.Topic{Name: "secrets" + suffix},
				broker.Topic{Name: rocketflow.MissingEventsTopic})
			if err != nil {
				t.Fatalf("the operator: %v", err)
			}
			publisher, consumer := as("publisher"+suffix, "publisher-secret"), as("consumer"+suffix, "consumer-secret")
			service := as("service"+suffix, "service-secret")
			t.Run("events", func(t *testing.T) { eventsFlow(t, publisher, consumer, suffix) })
			t.Run("timeouts", func(t *testing.T) { timeoutsFlow(t, service, suffix, acl1) })
			t.Run("discarded half messages", func(t *testing.T) { discardedAreRead(t, publisher, suffix) })
			t.Run("refused", func(t *testing.T) { isRefused(t, nameServer, transport, publisher, consumer, suffix, acl1) })
		})
	}
}

// eventsFlow checks that a service publishes events on both paths, that another handles them, and that what the broker has lost is
// requested and sent again.
func eventsFlow(t *testing.T, publisher, consumer *rocketmq.Client, suffix string) {
	pool, schema := testdb.Partitioned(t)
	publishing := func(path outbox.Path, b outbox.Broker) *outbox.Outbox {
		t.Helper()
		box, err := outbox.New(outbox.Config{Pool: pool, Schema: schema, Broker: b, Source: "publisher" + suffix, Path: path})
		if err != nil {
			t.Fatal(err)
		}
		return box
	}
	theirPool, theirSchema := testdb.Partitioned(t)
	theirs, err := outbox.New(outbox.Config{Pool: theirPool, Schema: theirSchema, Broker: consumer, Source: "consumer" + suffix})
	if err != nil {
		t.Fatal(err)
	}
	router, err := handlers.New(handlers.Config{Pool: theirPool, Schema: theirSchema, Broker: consumer, Source: "consumer" + suffix, Transactor: theirs})
	if err != nil {
		t.Fatal(err)
	}
	var handled atomic.Int64
	router.Handle("invoices", "orders"+suffix, "order.placed", func(context.Context, rocketflow.Tx, rocketflow.Event) error {
		handled.Add(1)
		return nil
	})
	start(t, theirs)
	start(t, router)
	place := func(box *outbox.Outbox) {
		t.Helper()
		if err := box.Within(deadline(t, 30*time.Second), func(ctx context.Context, tx rocketflow.Tx) error {
			return tx.Publish(ctx, rocketflow.Event{Topic: "orders" + suffix, Type: "order.placed", Subject: "o-1", Body: []byte("{}")})
		}); err != nil {
			t.Fatal(err)
		}
	}
	awaitHandled := func(n int64) {
		t.Helper()
		poll.Within(t, time.Minute, "events are handled", func() bool { return handled.Load() == n })
	}
	loses := &losingBroker{Client: publisher}
	relay := publishing(outbox.Relay, loses)
	if err := relay.Start(deadline(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	place(relay)
	awaitHandled(1)
	loses.all.Store(true)
	place(relay)
	poll.Within(t, time.Minute, "the broker has lost an event", func() bool { return loses.lost.Load() > 0 })
	stop(t, relay)
	halves := publishing(outbox.HalfMessages, publisher)
	start(t, halves)
	place(halves)
	awaitHandled(3)
}

// losingBroker is a broker that loses groups of events while all is set.
type losingBroker struct {
	*rocketmq.Client
	all  atomic.Bool
	lost atomic.Int64
}

func (b *losingBroker) SendGroup(ctx context.Context, ms []broker.Message) []error {
	if b.all.Load() {
		b.lost.Add(int64(len(ms)))
		return nil
	}
	return b.Client.SendGroup(ctx, ms)
}

// timeoutsFlow checks that a service can schedule messages to itself, and cancel them, where the broker has timers.
func timeoutsFlow(t *testing.T, c *rocketmq.Client, suffix string, acl1 bool) {
	ctx := deadline(t, time.Minute)
	came := make(chan broker.Delivery, 10)
	subscribeUntilEnd(t, c, broker.Subscription{Group: "service" + suffix + "-timeouts", Topics: []string{"timeouts" + suffix}, Begin: broker.BeginAt(time.Now().Add(-time.Hour))}, came)
	m := broker.Message{Topic: "timeouts" + suffix, Body: []byte("due")}
	at := time.Now().Add(time.Second)
	if acl1 {
		if _, err := c.Send(ctx, m); err != nil {
			t.Fatal(err)
		}
	} else {
		if _, err := c.Schedule(ctx, m, at); err != nil {
			t.Fatal(err)
		}
		m.Body = []byte("cancelled")
		timer, err := c.Schedule(ctx, m, at.Add(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Cancel(ctx, timer); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case d := <-came:
		if string(d.Body) != "due" {
			t.Errorf("got %s", d.Body)
		}
	case <-ctx.Done():
		t.Fatal("the message did not come")
	}
}

// discardedAreRead checks that a publisher is asked about its half messages, and reads those that the broker has given up.
func discardedAreRead(t *testing.T, c *rocketmq.Client, suffix string) {
	ctx := deadline(t, 90*time.Second)
	var asked atomic.Int64
	p, err := c.OpenTransactionProducer(ctx, "publisher"+suffix+"-undecided", func(context.Context, broker.Check) (broker.Decision, func(error)) {
		asked.Add(1)
		return broker.Unknown, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	half, err := p.Prepare(ctx, broker.Message{Topic: "orders" + suffix, Body: []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Rollback(ctx, half); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Prepare(ctx, broker.Message{Topic: "orders" + suffix, Body: []byte("undecided")}); err != nil {
		t.Fatal(err)
	}
	came := make(chan broker.Delivery, 10)
	var k broker.Consumer
	poll.Succeeds(t, time.Minute, func() error {
		k, err = c.SubscribeDiscarded(ctx, "publisher"+suffix+"_discarded", func(_ context.Context, d broker.Delivery) error {
			came <- d
			return nil
		})
		return err
	})
	defer stop(t, k)
	for {
		select {
		case d := <-came:
			if d.Topic != "orders"+suffix {
				continue // the other transport's
			}
			if string(d.Body) != "undecided" || asked.Load() == 0 {
				t.Errorf("after %d checks: %+v", asked.Load(), d)
			}
			return
		case <-ctx.Done():
			t.Fatal("the discarded half message did not come")
		}
	}
}

// isRefused checks that each right that is missing is named at once.
func isRefused(t *testing.T, nameServer string, transport rocketmq.Transport, publisher, consumer *rocketmq.Client, suffix string, acl1 bool) {
	orders, secrets := "orders"+suffix, "secrets"+suffix
	handler := func(context.Context, broker.Delivery) error { return nil }
	send := func(c *rocketmq.Client, topic string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := c.Send(ctx, broker.Message{Topic: topic, Body: []byte("x")})
			return err
		}
	}
	read := func(c *rocketmq.Client, group, topic string) func(context.Context) error {
		return func(ctx context.Context) error {
			k, err := c.Subscribe(ctx, broker.Subscription{Group: group, Topics: []string{topic}}, handler)
			if err == nil {
				stop(t, k)
			}
			return err
		}
	}
	connect := func(name, secret string) func(context.Context) error {
		return func(ctx context.Context) error {
			c, err := rocketmq.Open(ctx, config(nameServer, transport, name, secret))
			if err == nil {
				_ = c.Close(ctx)
			}
			return err
		}
	}
	create := "the right Create on topic mine"
	if acl1 {
		create = "has to be an administrator"
	}
	cases := map[string]struct {
		do   func(context.Context) error
		want string
	}{
		"send":                       {send(publisher, secrets), "the right Pub on topic " + secrets},
		"send where it may read":     {send(consumer, orders), "the right Pub on topic " + orders},
		"prepare":                    {prepare(publisher, secrets), "the right Pub on topic " + secrets},
		"read a topic":               {read(consumer, "consumer"+suffix+"-invoices", secrets), "the right Sub on topic " + secrets},
		"read in a group":            {read(consumer, "consumer"+suffix+"-mine", orders), "the right Sub on group consumer" + suffix + "-mine"},
		"create a topic":             {func(ctx context.Context) error { return consumer.CreateTopics(ctx, broker.Topic{Name: "mine"}) }, create},
		"with a wrong secret":        {connect("consumer"+suffix, "guessed"), "the secret key is wrong"},
		"as a user that isn't there": {connect("nobody", "guessed"), "no such user"},
		"without credentials":        {connect("", ""), "set AccessKey and SecretKey"},
	}
	if !acl1 { // ACL 1.0 doesn't check groups of messages
		cases["send a group"] = struct {
			do   func(context.Context) error
			want string
		}{func(ctx context.Context) error {
			return errors.Join(publisher.SendGroup(ctx, []broker.Message{{Topic: secrets, Body: []byte("1")}, {Topic: secrets, Body: []byte("2")}})...)
		}, "the right Pub on topic " + secrets}
	}
	for name, c := range cases {
		begin := time.Now()
		err := c.do(deadline(t, 30*time.Second))
		if !errors.Is(err, broker.ErrUnauthorized) || !errors.Is(err, broker.ErrRejected) || errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("%s: refused after %v", name, took)
		}
	}
}

func prepare(c *rocketmq.Client, topic string) func(context.Context) error {
	return func(ctx context.Context) error {
		p, err := c.OpenTransactionProducer(ctx, "refused", func(context.Context, broker.Check) (broker.Decision, func(error)) { return broker.Unknown, nil })
		if err != nil {
			return err
		}
		_, err = p.Prepare(ctx, broker.Message{Topic: topic, Body: []byte("x")})
		return err
	}
}

func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func config(nameServer string, transport rocketmq.Transport, name, secret string) rocketmq.Config {
	return rocketmq.Config{
		NameServers: []string{nameServer}, Service: "rights", AccessKey: name, SecretKey: secret, Transport: transport, SendTimeout: 20 * time.Second,
	}
}

func open(t *testing.T, nameServer string, transport rocketmq.Transport, name, secret string) *rocketmq.Client {
	t.Helper()
	return testbroker.Open(t, config(nameServer, transport, name, secret))
}

func subscribeUntilEnd(t *testing.T, c *rocketmq.Client, s broker.Subscription, came chan<- broker.Delivery) {
	t.Helper()
	k, err := c.Subscribe(deadline(t, 30*time.Second), s, func(_ context.Context, d broker.Delivery) error {
		came <- d
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, k) })
}

type stopper interface {
	Stop(ctx context.Context) error
}

func stop(t *testing.T, part stopper) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := part.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// start starts a part until the test ends.
func start(t *testing.T, part interface {
	stopper
	Start(ctx context.Context) error
},
) {
	t.Helper()
	if err := part.Start(deadline(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, part) })
}
