package rocketmq_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

func nop(context.Context, broker.Delivery) error { return nil }

// Consumers that stop while the queues of their group move are forgotten by the broker, so that others get their queues. On
// a real broker about one in eight stays a member for two minutes if it goes without a look.
func TestStopLeavesNoGhost(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := open(t)
	topic := "ghosts-" + uuid.NewString()
	if err := c.CreateTopics(ctx, broker.Topic{Name: topic, Queues: 4}); err != nil {
		t.Fatal(err)
	}
	nameServer := nameServers(t)[0]
	const groups, rounds, members = 8, 10, 2
	group := func(g, round int) string { return fmt.Sprint(topic, g, "-", round) }
	var all errgroup.Group
	for g := range groups {
		all.Go(func() error {
			for round := range rounds {
				s := broker.Subscription{Group: group(g, round), Topics: []string{topic}}
				var joined []broker.Consumer
				for range members {
					k, err := c.Subscribe(ctx, s, nop)
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
			eventually(t, 20*time.Second, func() error {
				ids, err := testbroker.Members(ctx, nameServer, group(g, round))
				if err == nil && len(ids) > 0 {
					err = fmt.Errorf("still listed in group %s: %v", group(g, round), ids)
				}
				return err
			})
		}
	}
}

// A consumer doesn't go while its heartbeat is under way. (They go one after the other, so several may be late.)
func TestStopAwaitsHeartbeats(t *testing.T) {
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
	for range 2 { // the second has queues of the first moved, and the end of the first those of the second
		k, err := c.Subscribe(t.Context(), broker.Subscription{Group: "group", Topics: []string{"topic"}}, nop)
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
			t.Errorf("gone %v before the answer to a heartbeat", early)
		}
	}
}
