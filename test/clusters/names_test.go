package clusters

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/devstack"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/poll"
)

// maxPause is how long sends and handlers may pause while name servers die: nothing that runs needs one, and the rest is the machine's.
const maxPause = 5 * time.Second

// TestNameServersAreDown kills one of two name servers, and then both for a minute. A service that runs goes on; one that starts meanwhile
// starts with the name server that is left, and without any waits for one.
func TestNameServersAreDown(t *testing.T) {
	for _, transport := range transports() {
		t.Run(transport.String(), func(t *testing.T) {
			cluster := start(t, devstack.ClusterConfig{Brokers: []string{"broker-a"}, NameServers: 2})
			s := load(t, cluster.NameServerAddresses(), transport)
			s.flowing(time.Now(), time.Minute)
			pauses := func(what string, d time.Duration) {
				t.Helper()
				end, seen := make(chan struct{}), make(chan outage, 1)
				go func() { seen <- s.watch(end) }()
				until := time.Now().Add(d)
				poll.Within(t, d+time.Minute, what, func() bool { return time.Now().After(until) })
				close(end)
				o := <-seen
				t.Logf("%s: no send for %v, no handler for %v", what, o.sends, o.handlers)
				if o.sends > maxPause || o.handlers > maxPause {
					t.Errorf("%s: no send for %v, no handler for %v; want at most %v", what, o.sends, o.handlers, maxPause)
				}
			}
			reader := func(config rocketmq.Config, group string) (c *rocketmq.Client, got *atomic.Int64) {
				t.Helper()
				config.NameServers, config.Service, config.Transport = cluster.NameServerAddresses(), group, transport
				c, err := rocketmq.Open(bounded(t, 30*time.Second), config)
				if err != nil {
					t.Fatalf("%s: %v", group, err)
				}
				t.Cleanup(func() { _ = c.Close(context.Background()) })
				got = new(atomic.Int64)
				if _, err := c.Subscribe(bounded(t, 30*time.Second), broker.Subscription{Group: group, Topics: []string{topic}, Begin: broker.BeginAt(time.Now())},
					func(context.Context, broker.Delivery) error { got.Add(1); return nil }); err != nil {
					t.Fatalf("%s: %v", group, err)
				}
				return c, got
			}

			for i, server := range cluster.NameServers {
				server.Kill()
				_, got := reader(rocketmq.Config{}, []string{"with-the-second", "with-the-first"}[i])
				poll.Within(t, time.Minute, "a reader that starts with one name server reads", func() bool { return got.Load() > 0 })
				pauses("with one of two name servers", 20*time.Second)
				if err := server.Start(); err != nil {
					t.Fatal(err)
				}
				if err := cluster.AwaitNameServers(bounded(t, time.Minute)); err != nil {
					t.Fatal(err)
				}
			}

			for _, server := range cluster.NameServers {
				server.Kill()
			}
			_, err := rocketmq.Open(bounded(t, 30*time.Second), rocketmq.Config{NameServers: cluster.NameServerAddresses(), Service: "refused", Transport: transport})
			if !errors.Is(err, broker.ErrUnavailable) {
				t.Errorf("open without name servers: %v", err)
			}
			c, got := reader(rocketmq.Config{AwaitBroker: true}, "without-any")
			pauses("without name servers", time.Minute)
			if err := c.Ping(bounded(t, 10*time.Second)); !errors.Is(err, broker.ErrUnavailable) || got.Load() != 0 {
				t.Errorf("a reader that started without name servers has read %d messages; ping: %v", got.Load(), err)
			}
			for _, server := range cluster.NameServers {
				if err := server.Start(); err != nil {
					t.Fatal(err)
				}
			}
			back := time.Now()
			if err := cluster.AwaitNameServers(bounded(t, 2*time.Minute)); err != nil {
				t.Fatal(err)
			}
			poll.Within(t, 2*time.Minute, "the reader that waited reads", func() bool { return got.Load() > 0 })
			t.Logf("the reader that waited for name servers read %v after they were started", time.Since(back).Round(100*time.Millisecond))
			s.settle()
		})
	}
}
