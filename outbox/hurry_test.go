package outbox

import (
	"testing"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
)

// What comes in hurry while the sweep reads isn't forgotten, though the sweep doesn't see it yet: else it would wait out
// its grace, and what follows it in its stream would overtake it.
func TestHurrySettles(t *testing.T) {
	t.Parallel()
	var h hurry
	owes, acked, late := uuid.New(), uuid.New(), uuid.New()
	h.add(owes)
	h.add(acked)
	asked := h.all()
	h.add(late)
	h.settle(asked, []owed{{event: rocketflow.Event{ID: owes}}, {event: rocketflow.Event{ID: uuid.New()}}})
	got := h.all()
	if len(got) != 2 || !got[owes] || !got[late] {
		t.Errorf("in hurry are %v, want %v and %v", got, owes, late)
	}
}
