package outbox

import (
	"testing"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
)

// An event that becomes expedited while the sweep reads is kept, though the sweep doesn't see it yet: else it would wait
// until its grace has passed, and what follows it in its stream would overtake it.
func TestEventsExpeditedDuringASweepAreKept(t *testing.T) {
	t.Parallel()
	var x expedited
	owed, acked, late := uuid.New(), uuid.New(), uuid.New()
	x.add(owed)
	x.add(acked)
	before := x.all()
	x.add(late)
	x.dropNotOwed(before, []owedRow{{event: rocketflow.Event{ID: owed}}, {event: rocketflow.Event{ID: uuid.New()}}})
	got := x.all()
	if len(got) != 2 || !got[owed] || !got[late] {
		t.Errorf("expedited are %v, want %v and %v", got, owed, late)
	}
}
