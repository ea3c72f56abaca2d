package rocketmq_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

func ignore(context.Context, broker.Delivery) error { return nil }

// TestStopRemovesConsumersFromTheirGroup stops consumers while the queues of their group change. The brokers must remove them at once, so
// that others get their queues. Without the shutdown window a real broker lists about one in eight for two more minutes.
func TestStopRemovesConsumersFromTheirGroup(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := open(t)
	topic := "members-" + uuid.NewString()
	if err := c.CreateTopics(ctx, broker.Topic{Name: topic, Queues: 4}); err != nil {
		t.Fatal(err)
	}
	nameServer := testbroker.NameServers(t)[0]
	const groups, rounds, members = 8, 10, 2
	group := func(g, round int) string { return fmt.Sprint(topic, g, "-", round) }
	var all errgroup.Group
	for g := range groups {
		all.Go(func() error {
			for round := range rounds {
				s := broker.Subscription{Group: group(g, round), Topics: []string{topic}}
				var joined []broker.Consumer
				for range members {
					k, err := c.Subscribe(ctx, s, ignore)
					if err != nil {
						return err
					}
					joined = append(joined, k)
				}
				if ids, err := testbroker.Members(ctx, nameServer, s.Group); err != nil || len(ids) != members {
					return fmt.Errorf("listed before they stop: %v, %v; want %d", ids, err, members)
				}
				var ends errgroup.Group
				for _, k := range joined {
					ends.Go(func() error { return k.Stop(ctx) })
				}
				if err := ends.Wait(); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	for g := range groups {
		for round := range rounds {
			poll.Succeeds(t, 20*time.Second, func() error {
				ids, err := testbroker.Members(ctx, nameServer, group(g, round))
				if err == nil && len(ids) > 0 {
					err = fmt.Errorf("still listed in group %s: %v", group(g, round), ids)
				}
				return err
			})
		}
	}
}

// TestStopWaitsForHeartbeats: a consumer doesn't disconnect while a heartbeat is in flight. (The client sends heartbeats one after the
// other, so several may be late.)
func TestStopWaitsForHeartbeats(t *testing.T) {
	t.Parallel()
	const slow = 100 * time.Millisecond
	mq := rocketmqtest.RunT(t)
	mq.CreateTopic("topic", 4)
	var mu sync.Mutex
	answered := map[netip.AddrPort]time.Time{} // when the last heartbeat is, by who sent it
	mq.Control(func(r rocketmqtest.Request) rocketmqtest.Action {
		if r.Name == "HEART_BEAT" && bytes.Contains(r.Body, []byte(`"groupName":"group"`)) {
			mu.Lock()
			defer mu.Unlock()
			answered[r.Remote] = time.Now().Add(slow)
			return rocketmqtest.Delay(slow)
		}
		return rocketmqtest.Pass
	})
	c := open(t, func(config *rocketmq.Config) { config.NameServers = []string{mq.Addr()} })
	type member struct {
		broker.Consumer
		remote netip.AddrPort
	}
	var members []member
	for range 2 { // the start of the second changes the queues of the first, and the end of the first those of the second
		k, err := c.Subscribe(t.Context(), broker.Subscription{Group: "group", Topics: []string{"topic"}}, ignore)
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		for remote := range answered {
			if !slices.ContainsFunc(members, func(m member) bool { return m.remote == remote }) {
				members = append(members, member{k, remote})
			}
		}
		mu.Unlock()
	}
	if len(members) != 2 {
		t.Fatalf("%d connections for two consumers", len(members))
	}
	for _, m := range members {
		if err := m.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		early := time.Until(answered[m.remote])
		mu.Unlock()
		if early > 0 {
			t.Errorf("disconnected %v before the response to a heartbeat", early)
		}
	}
}

// A producer group leaves its brokers behind a heartbeat that names it: the broker would list it again, and go on to send checks to it.
func TestProducersLeaveBehindTheirHeartbeat(t *testing.T) {
	t.Parallel()
	mq := rocketmqtest.RunT(t)
	c := open(t, func(c *rocketmq.Config) { c.NameServers = []string{mq.Addr()} })
	check := func(context.Context, broker.Check) (broker.Decision, func(error)) { return broker.Unknown, nil }
	first, err := c.OpenTransactionProducer(t.Context(), "first", check)
	if err != nil {
		t.Fatal(err)
	}
	var held, early atomic.Bool
	beats, release := make(chan struct{}, 1), make(chan struct{})
	defer mq.Control(func(r rocketmqtest.Request) rocketmqtest.Action {
		switch {
		case r.Name == "HEART_BEAT" && bytes.Contains(r.Body, []byte(`"groupName":"second"`)) && held.CompareAndSwap(false, true):
			beats <- struct{}{}
			return rocketmqtest.HoldUntil(release)
		case r.Name == "UNREGISTER_CLIENT":
			select {
			case <-release:
			default:
				early.Store(true)
			}
		}
		return rocketmqtest.Pass
	})()
	var all errgroup.Group
	all.Go(func() error {
		second, err := c.OpenTransactionProducer(t.Context(), "second", check)
		if err == nil {
			err = second.Close(t.Context())
		}
		return err
	})
	<-beats // it names both
	time.AfterFunc(300*time.Millisecond, func() { close(release) })
	if err := first.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
	if early.Load() {
		t.Error("a group has left while a heartbeat that names it was under way")
	}
}
