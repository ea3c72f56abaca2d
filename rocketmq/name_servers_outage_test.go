package rocketmq_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/servicetest"
)

// TestNameServersAreDown: while all name servers are down a running client sends to and consumes the topics that it knows, and a client that
// starts waits for them. When they are back, so is everything. Package test/clusters has the same with real servers, for a minute.
func TestNameServersAreDown(t *testing.T) {
	t.Parallel()
	mq := rocketmqtest.RunT(t)
	mq.CreateTopic("orders", 2)
	one, two := servicetest.NewGate(t, mq.Addr()), servicetest.NewGate(t, mq.Addr())
	ctx := deadline(t, 2*time.Minute)
	reach := func(c *rocketmq.Config) { c.NameServers = []string{one.Address, two.Address} }
	c := open(t, reach)
	var mu sync.Mutex
	got := map[string]bool{}
	subscribe := func(c *rocketmq.Client, group string) {
		t.Helper()
		k, err := c.Subscribe(ctx, broker.Subscription{Group: group, Topics: []string{"orders"}}, func(_ context.Context, d broker.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			got[group+" "+string(d.Body)] = true
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = k.Stop(context.Background()) })
	}
	send := func(body string) {
		t.Helper()
		if _, err := c.Send(ctx, broker.Message{Topic: "orders", Body: []byte(body)}); err != nil {
			t.Fatalf("send %s: %v", body, err)
		}
	}
	receive := func(want ...string) {
		t.Helper()
		poll.Succeeds(t, time.Minute, func() error {
			mu.Lock()
			defer mu.Unlock()
			for _, w := range want {
				if !got[w] {
					return fmt.Errorf("%q didn't come", w)
				}
			}
			return nil
		})
	}
	subscribe(c, "running")
	send("before")
	receive("running before")

	one.Close()
	two.Close()
	_, err := rocketmq.Open(deadline(t, 20*time.Second), rocketmq.Config{NameServers: []string{one.Address, two.Address}, Service: "test"})
	if !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("open without name servers: %v", err)
	}
	starting := open(t, reach, await)
	subscribe(starting, "starting")
	for until := time.Now().Add(12 * time.Second); time.Now().Before(until); { // more than an update of routes and brokers
		body := unique("without")
		send(body)
		receive("running " + body)
	}
	if err := c.Ping(ctx); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("ping without name servers: %v", err)
	}

	one.Open()
	two.Open()
	poll.Succeeds(t, 30*time.Second, func() error { return errors.Join(c.Ping(ctx), starting.Ping(ctx)) })
	send("after")
	receive("running after", "starting after")
}

// TestANameServerMovesToAnotherHost: the host name of the only name server leads to another address, later to none. The client follows, and
// goes on with the address that it knows.
func TestANameServerMovesToAnotherHost(t *testing.T) {
	t.Parallel()
	mq := rocketmqtest.RunT(t)
	first := relayAt(t, "127.0.0.1:0", mq.Addr())
	_, port, err := net.SplitHostPort(first.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	host := "127.0.0.1"
	move := func(to string) {
		mu.Lock()
		defer mu.Unlock()
		host = to
	}
	c := open(t, func(c *rocketmq.Config) {
		c.NameServers = []string{"names.example:" + port}
		c.LookUpHost(func(_ context.Context, name string) ([]string, error) {
			mu.Lock()
			defer mu.Unlock()
			if name != "names.example" || host == "" {
				return nil, fmt.Errorf("no such host: %s", name)
			}
			return []string{host}, nil
		})
	})
	ctx := deadline(t, time.Minute)
	known := 0
	check := func(what string) { // a new topic, whose route only a name server has
		t.Helper()
		known++
		topic := fmt.Sprintf("topic-%d", known)
		mq.CreateTopic(topic, 1)
		poll.Succeeds(t, 30*time.Second, func() error {
			if err := c.VerifyTopics(ctx, topic); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			return nil
		})
	}
	check("at the first address")
	second := relayAt(t, "127.0.0.2:"+port, mq.Addr())
	move("127.0.0.2")
	first.Close()
	check("at another address")
	move("")
	poll.Within(t, 30*time.Second, "the lookup fails and the address is kept", func() bool {
		used := c.UsableNameServers()
		return len(used) == 1 && used[0] == second.Addr().String()
	})
	check("while the name leads nowhere")
}

// relayAt passes connections to an address on to another. Close ends those that it has, too.
func relayAt(t *testing.T, at, to string) *closingListener {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	r := &closingListener{Listener: l}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				client.Close()
				continue
			}
			r.keep(client, server)
			work.Go(func() { _, _ = io.Copy(server, client); server.Close() })
			work.Go(func() { _, _ = io.Copy(client, server); client.Close() })
		}
	})
	t.Cleanup(func() { r.Close(); work.Wait() })
	return r
}

type closingListener struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (l *closingListener) keep(conns ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, conns...)
}

// Close closes the listener and its connections.
func (l *closingListener) Close() error {
	err := l.Listener.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.Close()
	}
	return err
}
