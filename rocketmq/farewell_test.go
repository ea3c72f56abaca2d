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
	at := func(d time.Duration) *time.Time { t := start.Add(d); return &t }
	for name, c := range map[string]struct {
		after time.Duration
		moved *time.Time
		now   *time.Time
		want  time.Duration
	}{
		"just started":            {time.Second, at(0), at(100 * time.Millisecond), 900 * time.Millisecond},
		"before a heartbeat":      {500 * time.Millisecond, at(0), at(960 * time.Millisecond), 540 * time.Millisecond},
		"behind a heartbeat":      {500 * time.Millisecond, at(0), at(1450 * time.Millisecond), 50 * time.Millisecond},
		"between heartbeats":      {time.Second, at(0), at(10 * time.Second), 0},
		"just moved":              {time.Second, at(9 * time.Second), at(9400 * time.Millisecond), 600 * time.Millisecond},
		"a later heartbeat":       {time.Second, at(0), at(31 * time.Second), 500 * time.Millisecond},
		"moved before a late one": {time.Second, at(90 * time.Second), at(91 * time.Second), 500 * time.Millisecond},
		"at once":                 {-1, at(0), at(time.Millisecond), 0},
	} {
		f := &farewell{after: c.after, start: start, moved: *c.moved}
		if got := max(0, f.rest(*c.now)); got != c.want {
			t.Errorf("%s: rests for %v, want %v", name, got, c.want)
		}
	}
}

func TestFarewellNotesMoves(t *testing.T) {
	t.Parallel()
	f := newFarewell(time.Hour)
	queues := []*primitive.MessageQueue{{Topic: "t", BrokerName: "b", QueueId: 0}, {Topic: "t", BrokerName: "b", QueueId: 1}}
	both := []string{"me", "other"}
	moves := func(clients []string) bool {
		before := f.moved
		mine := f.allot("g", "me", queues, clients)
		if want := queues[:2/len(clients)]; !slices.Equal(mine, want) {
			t.Errorf("of %v: got %v, want %v", clients, mine, want)
		}
		return f.moved.After(before)
	}
	for i, c := range []struct {
		clients []string
		moves   bool
	}{{both[:1], true}, {both[:1], false}, {both, true}, {both, false}, {both[:1], true}} {
		if got := moves(c.clients); got != c.moves {
			t.Errorf("%d: moved %t, want %t", i, got, c.moves)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.wait(ctx) // an hour, but for ctx
}
