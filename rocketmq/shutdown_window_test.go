package rocketmq

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// TestShutdownWindowIsClosed checks for how long a consumer must not disconnect.
func TestShutdownWindowIsClosed(t *testing.T) {
	t.Parallel()
	start := time.Now()
	for name, c := range map[string]struct {
		quietPeriod, changed, now, want time.Duration // changed and now: since the start
	}{
		"just started":              {time.Second, 0, 100 * time.Millisecond, 900 * time.Millisecond},
		"before a heartbeat":        {500 * time.Millisecond, 0, 960 * time.Millisecond, 540 * time.Millisecond},
		"after a heartbeat":         {500 * time.Millisecond, 0, 1450 * time.Millisecond, 50 * time.Millisecond},
		"between heartbeats":        {time.Second, 0, 10 * time.Second, 0},
		"just changed":              {time.Second, 9 * time.Second, 9400 * time.Millisecond, 600 * time.Millisecond},
		"a later heartbeat":         {time.Second, 0, 31 * time.Second, 500 * time.Millisecond},
		"changed before a late one": {time.Second, 90 * time.Second, 91 * time.Second, 500 * time.Millisecond},
		"at once":                   {-1, 0, time.Millisecond, 0},
	} {
		w := &shutdownWindow{quietPeriod: c.quietPeriod, started: start, changed: start.Add(c.changed)}
		if got := max(0, w.closedFor(start.Add(c.now))); got != c.want {
			t.Errorf("%s: closed for %v, want %v", name, got, c.want)
		}
	}
}

// TestShutdownWindowSeesChangesOfQueues also checks the allocation of queues.
func TestShutdownWindowSeesChangesOfQueues(t *testing.T) {
	t.Parallel()
	w := newShutdownWindow(time.Hour)
	queues := []*primitive.MessageQueue{{Topic: "t", BrokerName: "b", QueueId: 0}, {Topic: "t", BrokerName: "b", QueueId: 1}}
	both := []string{"me", "other"}
	twice := []string{"me", "me"} // listed also for an earlier connection
	changes := func(clients []string) bool {
		w.changed = time.Time{}
		mine := w.allocate("g", "me", queues, clients)
		if want := queues[:2/len(slices.Compact(slices.Clone(clients)))]; !slices.Equal(mine, want) {
			t.Errorf("of %v: got %v, want %v", clients, mine, want)
		}
		return !w.changed.IsZero()
	}
	for i, c := range []struct {
		clients []string
		changes bool
	}{{both[:1], true}, {both[:1], false}, {both, true}, {both, false}, {both[:1], true}, {twice, false}} {
		if got := changes(c.clients); got != c.changes {
			t.Errorf("%d: changed %t, want %t", i, got, c.changes)
		}
	}
	w.changed = time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.wait(ctx) // returns because ctx has ended, not after an hour
}
