package rocketmq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/devstack"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// These tests stop, pause or restrict a broker, so each has a broker of its own.

func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func at(mq testbroker.Broker) func(*rocketmq.Config) {
	return func(c *rocketmq.Config) { c.NameServers = []string{mq.NameServer()} }
}

func as(user, secret string) func(*rocketmq.Config) {
	return func(c *rocketmq.Config) { c.AccessKey, c.SecretKey = user, secret }
}

func unique(prefix string) string { return prefix + "-" + uuid.NewString()[:13] }

func createTopic(t *testing.T, c *rocketmq.Client, topics ...broker.Topic) {
	t.Helper()
	if err := c.CreateTopics(deadline(t, 90*time.Second), topics...); err != nil {
		t.Fatal(err)
	}
}

func TestBrokerRestart(t *testing.T) {
	mq := testbroker.Start(t)
	ctx := deadline(t, 3*time.Minute)
	up, down := make(chan struct{}, 10), make(chan struct{}, 10)
	c := open(t, at(mq), func(c *rocketmq.Config) {
		c.Listener = &rocketmq.Listener{
			BrokerUp:   func(rocketmq.BrokerInfo) { up <- struct{}{} },
			BrokerDown: func(rocketmq.BrokerInfo) { down <- struct{}{} },
		}
	})
	<-up
	topic := unique("restart")
	createTopic(t, c, broker.Topic{Name: topic, Queues: 2})
	got := make(chan string, 1000)
	consumer, err := c.Subscribe(ctx, broker.Subscription{Group: unique("group"), Topics: []string{topic}}, func(_ context.Context, d broker.Delivery) error {
		got <- string(d.Body)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	tr, err := c.OpenTransactionProducer(ctx, unique("producers"), func(context.Context, broker.Check) (broker.Decision, func(error)) {
		return broker.Commit, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	expect := func(want string, within time.Duration) {
		t.Helper()
		late := time.After(within)
		for !seen[want] {
			select {
			case body := <-got:
				seen[body] = true
			case <-late:
				t.Fatalf("message %s: not within %v", want, within)
			}
		}
	}
	if _, err := c.Send(ctx, broker.Message{Topic: topic, Body: []byte("before")}); err != nil {
		t.Fatal(err)
	}
	expect("before", 30*time.Second)
	if _, err := tr.Prepare(ctx, broker.Message{Topic: topic, Body: []byte("half")}); err != nil {
		t.Fatal(err)
	}

	mq.Kill()
	<-down
	start := time.Now()
	_, err = c.Send(ctx, broker.Message{Topic: topic, Body: []byte("x")})
	if !errors.Is(err, broker.ErrUnavailable) || errors.Is(err, broker.ErrRejected) {
		t.Errorf("send while the broker is down: got %v", err)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("send while the broker is down took %v", d)
	}
	if err := consumer.Err(); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("consumer while the broker is down says %v", err)
	}
	if err := c.Ping(ctx); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("ping while the broker is down: got %v", err)
	}

	if err := mq.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	<-up
	back := time.Now()
	poll.Succeeds(t, 10*time.Second, func() error {
		_, err := c.Send(ctx, broker.Message{Topic: topic, Body: []byte("after")})
		return err
	})
	t.Logf("sends go again %v after the broker is back", time.Since(back))
	expect("after", 15*time.Second)
	t.Logf("consumption goes on %v after the broker is back", time.Since(back))
	expect("half", 15*time.Second)
	t.Logf("the half message was checked %v after the broker is back", time.Since(back))
	poll.Succeeds(t, 10*time.Second, consumer.Err)
	poll.Succeeds(t, 10*time.Second, func() error { return c.Ping(ctx) })
}

// TestBrokerHangs: a broker that hangs accepts connections and responds to nothing. Sends must fail in time, and succeed when it goes on.
func TestBrokerHangs(t *testing.T) {
	mq := testbroker.Start(t)
	ctx := deadline(t, 3*time.Minute)
	c := open(t, at(mq))
	topic := unique("hang")
	createTopic(t, c, broker.Topic{Name: topic, Queues: 2})
	if _, err := c.Send(ctx, broker.Message{Topic: topic, Body: []byte("before")}); err != nil {
		t.Fatal(err)
	}
	if err := mq.Pause(); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := c.Send(short, broker.Message{Topic: topic, Body: []byte("x")})
	if !errors.Is(err, broker.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("took %v", d)
	}
	if err := mq.Continue(); err != nil {
		t.Fatal(err)
	}
	poll.Succeeds(t, 20*time.Second, func() error {
		_, err := c.Send(ctx, broker.Message{Topic: topic, Body: []byte("after")})
		return err
	})
}

func TestCredentials(t *testing.T) {
	mq := testbroker.StartSecured(t, "admin-user", "admin-secret")
	ctx := deadline(t, 3*time.Minute)
	for name, user := range map[string]func(*rocketmq.Config){
		"none": func(*rocketmq.Config) {}, "wrong secret": as("admin-user", "guess"), "unknown user": as("nobody", "guess"),
	} {
		config := rocketmq.Config{NameServers: []string{mq.NameServer()}, Service: "test"}
		user(&config)
		_, err := rocketmq.Open(ctx, config)
		if !errors.Is(err, broker.ErrUnauthorized) || !strings.Contains(err.Error(), mq.Broker()) {
			t.Errorf("open with credentials %s: got %v, want an ErrUnauthorized that names the broker", name, err)
		}
	}
	admin := open(t, at(mq), as("admin-user", "admin-secret"))
	createTopic(t, admin, broker.Topic{Name: "orders"})
	everything(t, admin, "app-1", "app-2")
}

// everything does all that a service does on the topic orders, with two consumer groups, so that every kind of request is signed.
func everything(t *testing.T, c *rocketmq.Client, first, last string) broker.TransactionProducer {
	t.Helper()
	ctx := deadline(t, 2*time.Minute)
	got := make(chan string, 10)
	handler := func(_ context.Context, d broker.Delivery) error { got <- string(d.Body); return nil }
	if _, err := c.Subscribe(ctx, broker.Subscription{Group: first, Topics: []string{"orders"}}, handler); err != nil {
		t.Fatalf("all granted: %v", err)
	}
	if _, err := c.Subscribe(ctx, broker.Subscription{Group: last, Topics: []string{"orders"}, Begin: broker.BeginNewest()}, handler); err != nil {
		t.Fatalf("all granted, from the newest: %v", err)
	}
	if _, err := c.Send(ctx, broker.Message{Topic: "orders", Body: []byte("sent")}); err != nil {
		t.Fatal(err)
	}
	tr, err := c.OpenTransactionProducer(ctx, "producers", func(context.Context, broker.Check) (broker.Decision, func(error)) {
		return broker.Commit, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	h, err := tr.Prepare(ctx, broker.Message{Topic: "orders", Body: []byte("half")})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Commit(ctx, h); err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Prepare(ctx, broker.Message{Topic: "orders", Body: []byte("checked")}); err != nil {
		t.Fatal(err)
	}
	if errs := c.SendGroup(ctx, []broker.Message{{Topic: "orders", Body: []byte("g1")}, {Topic: "orders", Body: []byte("g2")}}); errs != nil {
		t.Fatal(errs)
	}
	for range 10 { // five messages, two groups
		select {
		case <-got:
		case <-time.After(60 * time.Second):
			t.Fatal("messages are missing")
		}
	}
	// Without the grant Get a broker refuses to search for an instant.
	at := broker.Subscription{Group: last + "-at", Topics: []string{"orders"}, Begin: broker.BeginAt(time.Now().Add(-time.Hour))}
	if _, err := c.Subscribe(ctx, at, handler); err != nil {
		t.Fatalf("all granted, from an instant: %v", err)
	}
	for range 5 {
		select {
		case <-got:
		case <-time.After(60 * time.Second):
			t.Fatal("messages are missing for a group that begins an hour ago")
		}
	}
	return tr
}

// TestGrants needs a real broker: TestLeastPrivilege runs on the embedded one.
func TestGrants(t *testing.T) {
	testbroker.NeedsReal(t)
	topic := "Topic:orders*"
	grants := []rocketmqtest.Grant{{Resource: "Group:app*", Actions: []string{"Sub"}}}
	if testbroker.Is4() { // no prefixes
		topic, grants = "Topic:orders", nil
		for _, group := range []string{"app-1", "app-2", "app-2-at", "app-3", "app-4"} {
			grants = append(grants, rocketmqtest.Grant{Resource: "Group:" + group, Actions: []string{"Sub"}})
		}
	}
	and := func(actions ...string) []rocketmqtest.Grant {
		return slices.Concat(grants, []rocketmqtest.Grant{{Resource: topic, Actions: actions}})
	}
	mq := testbroker.StartRocketMQ(t, devstack.RocketMQConfig{Auth: &devstack.AuthConfig{
		Admin: rocketmqtest.User{Name: "admin-user", Secret: "admin-secret"},
		Users: []rocketmqtest.User{
			{Name: "app-user", Secret: "app-secret", Grants: and("Pub", "Sub")},
			{Name: "writer-user", Secret: "writer-secret", Grants: and("Pub")},
		},
	}})
	ctx := deadline(t, 3*time.Minute)
	createTopic(t, open(t, at(mq), as("admin-user", "admin-secret")), broker.Topic{Name: "orders"}, broker.Topic{Name: "secrets"})
	app := open(t, at(mq), as("app-user", "app-secret"))
	tr := everything(t, app, "app-1", "app-2")

	unauthorized := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, broker.ErrUnauthorized) || !errors.Is(err, broker.ErrRejected) {
			t.Errorf("%s: got %v, want ErrUnauthorized", what, err)
		}
	}
	handler := func(context.Context, broker.Delivery) error { return nil }
	m := broker.Message{Topic: "secrets", Body: []byte("x")}
	_, err := app.Send(ctx, m)
	unauthorized("send to a topic without grant", err)
	_, err = tr.Prepare(ctx, m)
	unauthorized("prepare for a topic without grant", err)
	_, err = app.Subscribe(ctx, broker.Subscription{Group: "app-3", Topics: []string{"secrets"}}, handler)
	unauthorized("subscribe to a topic without grant", err)
	_, err = app.Subscribe(ctx, broker.Subscription{Group: "other", Topics: []string{"orders"}}, handler)
	unauthorized("subscribe a group without grant", err)
	_, err = open(t, at(mq), as("writer-user", "writer-secret")).Subscribe(ctx, broker.Subscription{Group: "app-4", Topics: []string{"orders"}}, handler)
	unauthorized("subscribe with Pub only", err)
	unauthorized("create a topic", app.CreateTopics(ctx, broker.Topic{Name: "mine"}))
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	start := time.Now()
	_, err := rocketmq.Open(deadline(t, 20*time.Second), rocketmq.Config{NameServers: []string{"127.0.0.1:1"}, Service: "test"})
	if !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), "127.0.0.1:1") || time.Since(start) > 10*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
	_, err = rocketmq.Open(deadline(t, 20*time.Second), rocketmq.Config{NameServers: []string{"no-such-host.invalid:1"}, Service: "test"})
	if !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), "no-such-host.invalid") {
		t.Errorf("got %v", err)
	}
}
