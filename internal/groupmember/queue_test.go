package groupmember

import (
	"fmt"
	"slices"
	"testing"
)

// Together the members have each queue once, in the order of their ids, and the first ones have the larger parts.
func TestAllocate(t *testing.T) {
	t.Parallel()
	for n := range 20 {
		for m := 1; m < 12; m++ {
			var queues []Queue
			for i := range n {
				queues = append(queues, Queue{"orders", fmt.Sprintf("broker-%c", 'a'+i%2), i / 2})
			}
			slices.SortFunc(queues, compareQueues)
			var members []string
			for i := range m {
				members = append(members, fmt.Sprintf("member-%02d", i))
			}
			var all []Queue
			for i, self := range members {
				shuffled := slices.Clone(queues)
				slices.Reverse(shuffled)
				own := Allocate(shuffled, append(slices.Clone(members), self), self)
				want := n / m
				if i < n%m {
					want++
				}
				if len(own) != want {
					t.Fatalf("%d queues, %d members: %s has %d, want %d", n, m, self, len(own), want)
				}
				all = append(all, own...)
			}
			if !slices.Equal(all, queues) {
				t.Fatalf("%d queues, %d members: together they have %v", n, m, all)
			}
		}
	}
}

func TestAllocateGivesNonMembersNothing(t *testing.T) {
	t.Parallel()
	if q := Allocate([]Queue{{"orders", "a", 0}}, []string{"other"}, "self"); len(q) > 0 {
		t.Errorf("got %v", q)
	}
}
