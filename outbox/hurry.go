package outbox

import (
	"errors"
	"maps"
	"sync"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/broker"
)

// hurry holds events that this process could not send: nobody is at them, so the sweep needn't wait out their grace.
// After an outage that is what new events wait for.
type hurry struct {
	mu  sync.Mutex
	ids map[uuid.UUID]bool
}

// maxHurry bounds the memory; the rest waits for the grace.
const maxHurry = 1000

func (h *hurry) add(id uuid.UUID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ids == nil {
		h.ids = map[uuid.UUID]bool{}
	}
	if len(h.ids) < maxHurry {
		h.ids[id] = true
	}
}

func (h *hurry) remove(ids []uuid.UUID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		delete(h.ids, id)
	}
}

// settle forgets those of asked, which were in hurry before owed was read, that it lacks: they were acked elsewhere, or
// are rejected. What came in hurry since may have committed after owed was read.
func (h *hurry) settle(asked map[uuid.UUID]bool, owed []owed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	owes := make(map[uuid.UUID]bool, len(owed))
	for _, row := range owed {
		owes[row.event.ID] = true
	}
	for id := range asked {
		if !owes[id] {
			delete(h.ids, id)
		}
	}
}

func (h *hurry) all() map[uuid.UUID]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.ids)
}

// listener notes what could not be sent, and forgets what was. What the broker rejects isn't in a hurry.
func (h *hurry) listener() *Listener {
	return &Listener{
		Relayed: func(i RelayedInfo) {
			if i.Err != nil && !errors.Is(i.Err, broker.ErrRejected) {
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
