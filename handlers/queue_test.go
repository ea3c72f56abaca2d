package handlers

import (
	"testing"

	"github.com/rocketflow/rocketflow"
)

// An early event's group is looked at again when an event comes that it may wait for, also if that comes during the turn that found it
// early, and not for one that comes behind it.
func TestEarlyEventsWaitForWhatMayPrecedeThem(t *testing.T) {
	t.Parallel()
	const early = 50 // the sequence of the early event
	for _, tt := range []struct {
		name      string
		comes     rocketflow.Event
		wantReady bool
	}{
		{"an earlier one", rocketflow.Event{Topic: "orders", Subject: "o-1", Sequence: 40}, true},
		{"a later one", rocketflow.Event{Topic: "orders", Subject: "o-1", Sequence: 60}, false},
		{"one of another stream", rocketflow.Event{Topic: "payments", Subject: "o-1", Sequence: 60}, true},
		{"a timeout", rocketflow.Event{Topic: "deadlines", Subject: "o-1", TimeoutName: "payment"}, true},
	} {
		for _, during := range []bool{true, false} {
			name := tt.name + " after the turn"
			if during {
				name = tt.name + " during the turn"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				q := newQueue(1)
				add := func(e rocketflow.Event) { q.add(&item{event: e, done: make(chan error, 1)}) }
				add(rocketflow.Event{Topic: "orders", Subject: "o-1", Sequence: early})
				w, _ := q.take(10)
				endTurn := func() {
					q.giveBack(w.items...)
					q.done(w.groups, map[*group]bool{w.groups[0]: true})
				}
				want := tt.wantReady
				if during {
					add(tt.comes)
					endTurn()
					want = true // what comes during a turn may be behind what the turn has taken, which isn't in the queue
				} else {
					endTurn()
					add(tt.comes)
				}
				if got := len(q.ready) == 1; got != want {
					t.Errorf("ready: got %t, want %t", got, want)
				}
			})
		}
	}
}
