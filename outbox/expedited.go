package outbox

import (
	"errors"
	"maps"
	"sync"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/broker"
)

// expedited holds events that this process could not send. Nothing else sends them, so the sweep needn't wait until their
// grace has passed: after an outage they are what new events of their streams wait for.
type expedited struct {
	mu  sync.Mutex
	ids map[uuid.UUID]bool
}

// maxExpedited bounds the memory; what is beyond it waits for the grace.
const maxExpedited = 1000

func (x *expedited) add(id uuid.UUID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ids == nil {
		x.ids = map[uuid.UUID]bool{}
	}
	if len(x.ids) < maxExpedited {
		x.ids[id] = true
	}
}

func (x *expedited) remove(ids []uuid.UUID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, id := range ids {
		delete(x.ids, id)
	}
}

// dropNotOwed drops those of before, which all returned before owed was read, that owed lacks: they were acknowledged by
// another process, or are rejected. What was added since is kept: it may have committed after owed was read.
func (x *expedited) dropNotOwed(before map[uuid.UUID]bool, owed []owedRow) {
	x.mu.Lock()
	defer x.mu.Unlock()
	isOwed := make(map[uuid.UUID]bool, len(owed))
	for _, row := range owed {
		isOwed[row.event.ID] = true
	}
	for id := range before {
		if !isOwed[id] {
			delete(x.ids, id)
		}
	}
}

// all returns a copy.
func (x *expedited) all() map[uuid.UUID]bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return maps.Clone(x.ids)
}

// listener returns a listener that adds what could not be sent and removes what was acknowledged. Rejected events are not
// added: they have pauses of their own.
func (x *expedited) listener() *Listener {
	return &Listener{
		Relayed: func(i RelayedInfo) {
			if i.Err != nil && !errors.Is(i.Err, broker.ErrRejected) {
				x.add(i.Event.ID)
			}
		},
		Acked: func(i AckedInfo) {
			if i.Err == nil {
				x.remove(i.IDs)
			}
		},
	}
}
