package rocketmq_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// badAddresses returns addresses of name servers that don't work, by what is wrong with them.
func badAddresses(t *testing.T) map[string]string {
	return map[string]string{
		"accepts and never answers": listen(t, func(net.Conn) {}),
		"accepts and hangs up":      listen(t, func(c net.Conn) { _ = c.Close() }),
		"hangs at connect":          blackHole(t),
		"refuses":                   "127.0.0.1:1",
		"has no address":            "no-such-host.invalid:9876",
	}
}

// listen accepts connections at the address that it returns, until the test ends.
func listen(t *testing.T, accepted func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			accepted(c)
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
		for _, c := range conns {
			_ = c.Close()
		}
	})
	return l.Addr().String()
}

// blackHole returns an address at which connecting gets no answer: that of a listener whose queue is full.
func blackHole(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	for {
		c, err := net.DialTimeout("tcp", address, 100*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { _ = c.Close() })
	}
}

// TestOneBadNameServer: one bad name server of two delays nothing, whatever is wrong with it and wherever it stands in Config.NameServers.
func TestOneBadNameServer(t *testing.T) {
	t.Parallel()
	mq := testbroker.Start(t)
	topic := unique("names")
	createTopic(t, open(t, at(mq)), broker.Topic{Name: topic, Queues: 2})
	for what, bad := range badAddresses(t) {
		for _, addresses := range [][]string{{bad, mq.NameServer()}, {mq.NameServer(), bad}} {
			t.Run(fmt.Sprintf("%s, %v first", what, addresses[0] == bad), func(t *testing.T) {
				t.Parallel()
				ctx := deadline(t, time.Minute)
				start := time.Now()
				c := open(t, func(c *rocketmq.Config) { c.NameServers = addresses })
				body := unique("body") // the topic is everybody's
				got := make(chan struct{}, 3)
				for range 3 { // one after the other
					k, err := c.Subscribe(ctx, broker.Subscription{Group: unique("group"), Topics: []string{topic}, Begin: broker.BeginNewest()},
						func(_ context.Context, d broker.Delivery) error {
							if string(d.Body) == body {
								got <- struct{}{}
							}
							return nil
						})
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = k.Stop(ctx) })
				}
				if err := errors.Join(c.VerifyTopics(ctx, topic), c.Ping(ctx)); err != nil {
					t.Error(err)
				}
				if _, err := c.Send(ctx, broker.Message{Topic: topic, Body: []byte(body)}); err != nil {
					t.Fatal(err)
				}
				<-got
				// The client alone would wait 6 s for the bad server at each start of a consumer: in all more than the 15 s in which fx
				// starts. (A real broker that has just booted is slow by itself.)
				if took := time.Since(start); took > 15*time.Second {
					t.Errorf("it took %v", took)
				}
			})
		}
	}
}

// TestAllNameServersBad: if all name servers are bad no call waits for each of them in turn, and the error names them.
func TestAllNameServersBad(t *testing.T) {
	t.Parallel()
	for what, address := range badAddresses(t) {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			addresses := []string{address, badAddresses(t)[what]}
			ctx := deadline(t, time.Minute)
			start := time.Now()
			_, err := rocketmq.Open(ctx, rocketmq.Config{NameServers: addresses, Service: "test"})
			if !errors.Is(err, broker.ErrUnavailable) || errors.Is(err, broker.ErrRejected) {
				t.Errorf("got %v", err)
			}
			for _, a := range addresses {
				if host, _, _ := strings.Cut(a, ":"); !strings.Contains(fmt.Sprint(err), a) && (what != "has no address" || !strings.Contains(fmt.Sprint(err), host)) {
					t.Errorf("the error doesn't name %s: %v", a, err)
				}
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("open failed after %v", took)
			}

			start = time.Now()
			c := open(t, await, func(c *rocketmq.Config) { c.NameServers = addresses })
			var all sync.WaitGroup
			for range 3 {
				all.Go(func() {
					k, err := c.Subscribe(ctx, broker.Subscription{Group: unique("group"), Topics: []string{"orders"}}, func(context.Context, broker.Delivery) error { return nil })
					if err != nil {
						t.Error(err)
					} else if k.Err() == nil {
						t.Error("a consumer without a name server reports no error")
					}
				})
			}
			all.Wait()
			if err := c.VerifyTopics(ctx, "orders"); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took > 10*time.Second { // less than the 15 s in which fx starts
				t.Errorf("it took %v", took)
			}
		})
	}
}

// TestNameServersComeAndGo: a running client notices that a name server stops responding, and that it responds again.
func TestNameServersComeAndGo(t *testing.T) {
	t.Parallel()
	mq := testbroker.Start(t)
	one, two := newRelay(t, mq.NameServer()), newRelay(t, mq.NameServer())
	ctx := deadline(t, 2*time.Minute)
	topic := unique("names")
	c := open(t, func(c *rocketmq.Config) { c.NameServers = []string{one.address, two.address} })
	createTopic(t, c, broker.Topic{Name: topic, Queues: 2})
	subscribe := func(what string) {
		t.Helper()
		start := time.Now()
		k, err := c.Subscribe(ctx, broker.Subscription{Group: unique("group"), Topics: []string{topic}}, func(context.Context, broker.Delivery) error { return nil })
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("%s: subscribe took %v", what, took)
		}
		if err := k.Stop(ctx); err != nil {
			t.Error(err)
		}
	}
	subscribe("both are well")
	for range 2 {
		one.hang(true)
		poll.Succeeds(t, 30*time.Second, func() error { return checkUsable(c, two) })
		subscribe("one hangs")
		one.hang(false)
		poll.Succeeds(t, 30*time.Second, func() error { return checkUsable(c, one, two) })
		one, two = two, one
	}
}

// TestConcurrentSubscribes: many consumers that start at the same time start as fast as a few.
func TestConcurrentSubscribes(t *testing.T) {
	t.Parallel()
	const consumers = 16
	ctx := deadline(t, time.Minute)
	c := open(t)
	topic := unique("side")
	createTopic(t, c, broker.Topic{Name: topic, Queues: 2})
	got := make(chan int, consumers)
	start := time.Now()
	var all sync.WaitGroup
	for i := range consumers {
		all.Go(func() {
			k, err := c.Subscribe(ctx, broker.Subscription{Group: unique("group"), Topics: []string{topic}, Begin: broker.BeginNewest()},
				func(context.Context, broker.Delivery) error { got <- i; return nil })
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { _ = k.Stop(ctx) })
		})
	}
	all.Wait()
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("%d consumers started in %v", consumers, took)
	}
	if _, err := c.Send(ctx, broker.Message{Topic: topic, Body: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for len(seen) < consumers {
		select {
		case i := <-got:
			seen[i] = true
		case <-ctx.Done():
			t.Fatalf("only %d of %d consumers got the message", len(seen), consumers)
		}
	}
}

func checkUsable(c *rocketmq.Client, want ...*relay) error {
	got := c.UsableNameServers()
	if len(got) == len(want) {
		mayReturn := false
		for _, r := range want {
			mayReturn = mayReturn || !strings.Contains(strings.Join(got, " "), r.address)
		}
		if !mayReturn {
			return nil
		}
	}
	return fmt.Errorf("the usable name servers are %v, want %d", got, len(want))
}

// relay passes bytes between its address and another, except while it hangs.
type relay struct {
	address string
	mu      sync.Mutex
	gate    chan struct{} // closed: bytes pass
}

func newRelay(t *testing.T, to string) *relay {
	r := &relay{gate: make(chan struct{})}
	close(r.gate)
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	pass := func(from, to net.Conn) {
		defer to.Close()
		b := make([]byte, 64<<10)
		for {
			n, err := from.Read(b)
			if err != nil {
				return
			}
			r.mu.Lock()
			gate := r.gate
			r.mu.Unlock()
			select {
			case <-gate:
			case <-ctx.Done():
				return
			}
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
	}
	r.address = listen(t, func(c net.Conn) {
		there, err := net.Dial("tcp", to)
		if err != nil {
			_ = c.Close()
			return
		}
		all.Go(func() { pass(c, there) })
		all.Go(func() { pass(there, c) })
		context.AfterFunc(ctx, func() { _ = c.Close(); _ = there.Close() })
	})
	t.Cleanup(func() { cancel(); all.Wait() })
	return r
}

func (r *relay) hang(yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if yes {
		r.gate = make(chan struct{})
	} else {
		close(r.gate)
	}
}
