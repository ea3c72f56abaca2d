package outbox

import (
	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
)

// overflowed is an event that the relay has no room for: its row is read back when there is room.
type overflowed struct {
	id   uuid.UUID
	size int
}

const (
	// maxOverflow bounds the memory to some MiB. Further events are found by the sweep.
	maxOverflow = 100_000
	// overflowPage is how many rows are read back at once; their bodies are bounded by sweepBytes, too.
	overflowPage = 512
)

// overflow remembers events that have no room; called with mu held.
func (r *relay) overflow(events []rocketflow.Event) {
	if r.quit || len(events) == 0 {
		return
	}
	for _, e := range events[:min(len(events), max(0, maxOverflow-len(r.overflowing)))] {
		r.overflowing = append(r.overflowing, overflowed{e.ID, len(e.Body) + eventOverhead})
	}
	r.overflowGrew.Signal()
}

// dropOverflow leaves the events that have no room to the sweep.
func (r *relay) dropOverflow() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.overflowing = nil
	r.drops++
}

// readBack reads events that didn't fit and puts them into the buffers, in order, until the relay ends.
func (r *relay) readBack() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.quit {
		if len(r.overflowing) == 0 {
			r.overflowGrew.Wait()
			continue
		}
		if r.held >= (r.outbox.config.RelayBuffer+1)/2 || r.bytes >= (r.outbox.config.RelayBytes+1)/2 {
			r.room.Wait()
			continue
		}
		n, size := 0, 0
		for n < min(len(r.overflowing), overflowPage) && (n == 0 || size+r.overflowing[n].size <= sweepBytes) {
			size += r.overflowing[n].size
			n++
		}
		ids := make([]string, n)
		for i, s := range r.overflowing[:n] {
			ids[i] = s.id.String()
		}
		drops := r.drops
		r.mu.Unlock()
		events, err := r.outbox.load(r.ctx, r.database, ids)
		r.mu.Lock()
		if err != nil {
			if !r.quit {
				r.outbox.log.Warn("events that had no room in the relay can't be read back; the sweep sends them after SweepGrace", keyEvents, len(r.overflowing), keyError, err)
			}
			r.overflowing = nil
			continue
		}
		// Events that were read are sent even if the others are dropped meanwhile.
		for _, e := range events {
			if !r.putWhenRoom(relayed{event: e}) {
				return
			}
		}
		// Removed last, so that events offered meanwhile queue up behind them.
		if r.drops != drops {
			continue
		}
		if r.overflowing = r.overflowing[n:]; len(r.overflowing) == 0 {
			r.overflowing = nil
		}
	}
}
