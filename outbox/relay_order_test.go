package outbox

import (
	"slices"
	"testing"

	"github.com/rocketflow/rocketflow"
)

// Events of transactions that commit one after the other wait in the order of their streams, in whatever order they are offered.
func TestRelayOrdersWhatWaits(t *testing.T) {
	t.Parallel()
	swept := func(error) {}
	for _, tt := range []struct {
		name    string
		offered []int64
		swept   []int64 // at the end
		want    []int64
	}{
		{"in order", []int64{1, 2, 3}, nil, []int64{1, 2, 3}},
		{"a transaction behind a later one", []int64{4, 5, 6, 1, 2, 3}, nil, []int64{1, 2, 3, 4, 5, 6}},
		{"the sweep's behind", []int64{4, 5}, []int64{1, 2}, []int64{4, 5, 1, 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := &queueBuffer{}
			put := func(sequence int64, done func(error)) {
				e := relayed{rocketflow.Event{Topic: "orders", Subject: "o-1", Sequence: sequence}, done}
				b.events = slices.Insert(b.events, b.place(e), e)
			}
			for _, s := range tt.offered {
				put(s, nil)
			}
			for _, s := range tt.swept {
				put(s, swept)
			}
			var got []int64
			for _, e := range b.events {
				got = append(got, e.event.Sequence)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// The comparison has a limit: beyond it an event goes to the end, and consumers put it in order.
func TestRelayLooksBackWithinALimit(t *testing.T) {
	t.Parallel()
	b := &queueBuffer{}
	for i := range int64(lookBack + 1) {
		b.events = append(b.events, relayed{event: rocketflow.Event{Topic: "orders", Subject: "o-1", Sequence: 10 + i}})
	}
	late := relayed{event: rocketflow.Event{Topic: "orders", Subject: "o-1", Sequence: 1}}
	if got := b.place(late); got != len(b.events) {
		t.Errorf("got %d, want the end, %d", got, len(b.events))
	}
	b.events = b.events[1:]
	if got := b.place(late); got != 0 {
		t.Errorf("got %d, want 0", got)
	}
}
