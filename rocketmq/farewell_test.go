package rocketmq

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/apache/rocketmq-client-go/v2/primitive"
)

func TestFarewellRest(t *testing.T) {
	t.Parallel()
	start := time.Now()
	for name, c := range map[string]struct {
		after, moved, now, want time.Duration // moved and now from the start on
	}{
		"just started":            {time.Second, 0, 100 * time.Millisecond, 900 * time.Millisecond},
		"before a heartbeat":      {500 * time.Millisecond, 0, 960 * time.Millisecond, 540 * time.Millisecond},
		"behind a heartbeat":      {500 * time.Millisecond, 0, 1450 * time.Millisecond, 50 * time.Millisecond},
		"between heartbeats":      {time.Second, 0, 10 * time.Second, 0},
		"just moved":              {time.Second, 9 * time.Second, 9400 * time.Millisecond, 600 * time.Millisecond},
		"a later heartbeat":       {time.Second, 0, 31 * time.Second, 500 * time.Millisecond},
		"moved before a late one": {time.Second, 90 * time.Second, 91 * time.Second, 500 * time.Millisecond},
		"at once":                 {-1, 0, time.Millisecond, 0},
	} {
		f := &farewell{after: c.after, start: start, moved: start.Add(c.moved)}
		if got := max(0, f.rest(start.Add(c.now))); got != c.want {
			t.Errorf("%s: rests for %v, want %v", name, got, c.want)
		}
	}
}

func TestFarewellNotesMoves(t *testing.T) {
	t.Parallel()
	f := newFarewell(time.Hour)
	queues := []*primitive.MessageQueue{{Topic: "t", BrokerName: "b", QueueId: 0}, {Topic: "t", BrokerName: "b", QueueId: 1}}
	both := []string{"me", "other"}
	twice := []string{"me", "me"} // by a broker that lists an earlier connection, too
	moves := func(clients []string) bool {
		f.moved = time.Time{}
		mine := f.allot("g", "me", queues, clients)
		if want := queues[:2/len(slices.Compact(slices.Clone(clients)))]; !slices.Equal(mine, want) {
			t.Errorf("of %v: got %v, want %v", clients, mine, want)
		}
		return !f.moved.IsZero()
	}
	for i, c := range []struct {
		clients []string
		moves   bool
	}{{both[:1], true}, {both[:1], false}, {both, true}, {both, false}, {both[:1], true}, {twice, false}} {
		if got := moves(c.clients); got != c.moves {
			t.Errorf("%d: moved %t, want %t", i, got, c.moves)
		}
	}
	f.moved = time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.wait(ctx) // an hour, but for ctx
}
