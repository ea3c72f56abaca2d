package outbox

import (
	"errors"
	"maps"
	"sync"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/broker"
)

// expedited is the set of events that this process tried to send and could not. The sweep sends them without waiting for
// SweepGrace, since no half message or relay will: after an outage the new events of their streams wait for them.
type expedited struct {
	mu  sync.Mutex
	ids map[uuid.UUID]bool
}

// maxExpedited bounds the set; further events wait for SweepGrace.
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

// dropNotOwed removes the events of before that are not in owed: they were acknowledged by another process, or are rejected.
// before is what all returned before owed was read. Events that were added since stay: they may have committed after that.
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

// all returns a copy of the set.
func (x *expedited) all() map[uuid.UUID]bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return maps.Clone(x.ids)
}

// listener returns a listener that adds the events that could not be sent and removes those that were acknowledged. Rejected
// events are not added: they are retried by their own schedule.
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
