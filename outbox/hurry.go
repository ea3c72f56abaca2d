package outbox

import (
	"maps"
	"slices"
	"sync"

	"github.com/google/uuid"
)

// hurry holds events that this process could not send: nobody is at them, so the sweep needn't wait out their grace.
// After an outage that is what new events wait for.
type hurry struct {
	mu  sync.Mutex
	ids map[uuid.UUID]struct{}
}

// maxHurry bounds the memory; the rest waits for the grace.
const maxHurry = 1000

func (h *hurry) add(id uuid.UUID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ids == nil {
		h.ids = map[uuid.UUID]struct{}{}
	}
	if len(h.ids) < maxHurry {
		h.ids[id] = struct{}{}
	}
}

func (h *hurry) remove(ids []uuid.UUID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		delete(h.ids, id)
	}
}

// keep forgets all but these: the rest was acked elsewhere.
func (h *hurry) keep(page []owed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	owes := make(map[uuid.UUID]bool, len(page))
	for _, row := range page {
		owes[row.event.ID] = true
	}
	maps.DeleteFunc(h.ids, func(id uuid.UUID, _ struct{}) bool { return !owes[id] })
}

func (h *hurry) all() []uuid.UUID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.AppendSeq(make([]uuid.UUID, 0, len(h.ids)), maps.Keys(h.ids))
}

// listener notes what could not be sent, and forgets what was.
func (h *hurry) listener() *Listener {
	return &Listener{
		Relayed: func(i RelayedInfo) {
			if i.Err != nil {
				h.add(i.Event.ID)
			}
		},
		Acked: func(i AckedInfo) {
			if i.Err == nil {
				h.remove(i.IDs)
			}
		},
	}
}
